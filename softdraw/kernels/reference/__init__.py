"""The operations in plain torch: what is right by definition, and what every fast body must equal.

``draws`` has the draws and the gradients of relaxed ones; ``rules`` has the draws that rules differentiate, and the
gradients of the rules.
"""

from softdraw.kernels.reference.draws import (
    best,
    checked,
    checked_temperature,
    drawn,
    gumbel,
    hard,
    hard_backward,
    index,
    relaxed_vjp,
    scores,
    soft,
    soft_backward,
    temperature_error,
    temperature_max,
    tempered,
    topk,
)
from softdraw.kernels.reference.rules import bits, bits_backward, hard_index, rule_backward, soft_bits

passes = None  # nothing is faster here than the formulas of pass_reference
over_bits = None  # nor than those of laws and losses of bits
subsets = None  # the formulas are in subset.py
tiles = None  # they are in tile_reference.py

__all__ = [
    "best",
    "bits",
    "bits_backward",
    "checked",
    "checked_temperature",
    "drawn",
    "gumbel",
    "hard",
    "hard_backward",
    "hard_index",
    "index",
    "over_bits",
    "passes",
    "relaxed_vjp",
    "rule_backward",
    "scores",
    "soft",
    "soft_backward",
    "soft_bits",
    "subsets",
    "temperature_error",
    "temperature_max",
    "tempered",
    "tiles",
    "topk",
]
