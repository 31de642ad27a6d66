"""The passes without noise in plain torch: one number for each row of logits, and what every fast body must equal.

A fast body (``pass_cpu``) has the operations of this file and, for each, ``<name>_backward``. It knows rows whose
largest logit is finite and targets that are legal. For anything else it gives None, and the formula here takes its
place: it has the limits at infinite logits (``numerics.log_probs``), and its checks raise the errors.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from softdraw.arguments import compute_dtype
from softdraw.numerics import log_probs, masked, times


class Rows(NamedTuple):
    """What a pass reads. Operands broadcast to ``(*batch, K)``, the categories last."""

    x: Tensor  # logits
    other: Tensor | None = None  # a target, or other logits
    mask: Tensor | None = None  # of x: True = allowed, of its shape
    other_mask: Tensor | None = None
    index: Tensor | None = None  # int64, a category a row
    keep: Tensor | None = None  # bool, batch: True = the row counts; others are not read, and give 0 or a constant


def entropy(rows: Rows, scale: float, shift: float) -> Tensor:
    """scale sum p (log p + shift), batch: the entropy (-1, 0), the divergence from the uniform law (1, log K)."""
    log_p = log_probs_of(rows)
    return times(log_p.exp(), scale * (log_p + shift)).sum(-1)


def log_probs_of(rows: Rows) -> Tensor:
    """log softmax of x in the compute dtype; a row that does not count is uniform."""
    x = masked(rows.x.to(compute_dtype(rows.x.dtype)), rows.mask)
    return log_probs(x if rows.keep is None else x.masked_fill(~rows.keep.unsqueeze(-1), 0))
