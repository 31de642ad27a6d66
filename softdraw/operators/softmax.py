"""The softmax as an operation: one pass over the logits, where ``numerics.softmax`` takes several."""

from __future__ import annotations

from torch import Tensor

from softdraw.arguments import prepare_tau
from softdraw.operators import draws


def softmax(logits: Tensor, tau: float | Tensor = 1.0) -> Tensor:
    """softmax(logits / tau), safe for any tau and for -inf; a row with nothing allowed is all zero."""
    return draws.gumbel_softmax_soft(logits, prepare_tau(tau, logits, logits.dim() - 1), None, None, None, 0)
