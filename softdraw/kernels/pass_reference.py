"""The passes without noise in plain torch: one number for each row of logits, and what every fast body must equal.

A fast body (``pass_cpu``) has the operations of this file and, for each, ``<name>_backward``. It knows rows whose
largest logit is finite and targets that are legal. For anything else it gives None, and the formula here takes its
place: it has the limits at infinite logits (``numerics.log_probs``), and its checks raise the errors.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from softdraw.arguments import compute_dtype
from softdraw.numerics import log_probs, masked, times, value_of


class Rows(NamedTuple):
    """What a pass reads. Operands broadcast to ``(*batch, K)``, the categories last."""

    x: Tensor  # logits
    other: Any = None  # a target, or other logits; None, as in every field below: there is none
    mask: Tensor | None = None  # of x: True = allowed, of its shape
    other_mask: Tensor | None = None
    category: Any = None  # int64, of a row
    keep: Tensor | None = None  # bool, batch: True = the row counts; others are not read, and give 0 or a constant


def entropy(rows: Rows, scale: float, shift: float) -> Tensor:
    """scale sum p (log p + shift), batch: the entropy (-1, 0), the divergence from the uniform law (1, log K)."""
    log_p = log_probs_of(rows)
    return times(log_p.exp(), scale * (log_p + shift)).sum(-1)


def index_nll(rows: Rows) -> Tensor:
    """-log p of each row's category, batch."""
    category = without(rows.category, rows.keep, 0)
    return -log_probs_of(rows).gather(-1, category.unsqueeze(-1)).squeeze(-1)


def nll(rows: Rows, scale: float, check: int, slack: float) -> Tensor:
    """-scale sum t log p, batch. A fast body refuses a t that is not what ``check`` (a code of CHECKS) names."""
    log_p = log_probs_of(rows)
    t = without(rows.other.to(log_p.dtype), rows.keep, 0)
    return times(*torch.broadcast_tensors(t, -scale * log_p)).sum(-1)


def kl(rows: Rows) -> Tensor:
    """sum p (log p - log q), batch; a category that p forbids counts nothing.

    One that q alone forbids makes it infinite, and the gradient that of the other categories.
    """
    return divergence(log_probs_of(rows), _other_log_probs(rows))


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``kl`` of log-probabilities."""
    possible = log_p != -math.inf
    safe_p = torch.where(possible, log_p, 0)
    impossible = possible & (log_q == -math.inf)
    difference = torch.where(possible & ~impossible, safe_p - torch.where(impossible, 0, log_q), 0)
    terms = torch.where(possible, safe_p.exp() * difference, 0).masked_fill(impossible, math.inf)
    return terms.sum(-1)


def kl_with_slope(rows: Rows) -> Tensor:
    """``kl`` as a loss: where it is infinite, its gradient is huge and finite, away from the forbidden categories."""
    log_q, log_p = log_probs_of(rows), _other_log_probs(rows)
    q = log_q.exp()
    # A quarter of the most negative number stands for log 0: sums over q stay finite, their gradient keeps its side.
    ratio = log_q.masked_fill(q == 0, 0) - log_p.clamp_min(torch.finfo(log_q.dtype).min / 4).masked_fill(q == 0, 0)
    loss = (q * ratio).sum(-1)
    forbidden = ((q > 0) & (log_p == -math.inf)).any(-1)
    # Only those rows go through value_of: in a row of its own every mode of differentiation is torch's.
    return torch.where(forbidden, value_of(torch.full_like(loss, math.inf), loss), loss)


def log_probs_of(rows: Rows) -> Tensor:
    """log softmax of x in the compute dtype; a row that does not count is uniform."""
    return log_probs(without(masked(rows.x.to(compute_dtype(rows.x.dtype)), rows.mask), rows.keep, 0))


def _other_log_probs(rows: Rows) -> Tensor:
    return log_probs(masked(rows.other.to(compute_dtype(rows.other.dtype)), rows.other_mask))


def without(t: Tensor, keep: Tensor | None, fill: float) -> Tensor:
    """Rows, or numbers of rows, with ``fill`` in the place of those that do not count."""
    return t if keep is None else t.masked_fill(~(keep if keep.dim() == t.dim() else keep.unsqueeze(-1)), fill)
