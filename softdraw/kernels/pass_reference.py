"""The passes without noise in plain torch: one number for each row of logits, or one for each group of rows, and what
every fast body must equal.

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
from softdraw.kernels.native import USAGE
from softdraw.numerics import log_probs, masked, times, value_of
from softdraw.tensors import is_plain


class Rows(NamedTuple):
    """What a pass reads. Operands broadcast to ``(*batch, K)``, the categories last."""

    x: Tensor  # logits
    other: Any = None  # a target, or other logits; None, as in every field below: there is none
    mask: Tensor | None = None  # of x: True = allowed, of its shape
    other_mask: Tensor | None = None
    category: Any = None  # int64, of a row
    keep: Tensor | None = None  # bool, batch: True = the row counts; others are not read, and give 0 or a constant
    weight: Tensor | None = None  # batch, without a gradient: the number of a row is multiplied by it


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


def usage(rows: Rows, loss: int, grouped: bool) -> tuple[Tensor, Tensor]:
    """How each group of rows uses its categories, groups, and the sum of its weights: 0 where it has no row.

    ``loss`` is a code of USAGE. The groups are the first dimension of the batch, or there is one, without dimensions.
    ``rows.other`` are the choices that a balance compares the mean law with, (groups, K); None: the largest logits.
    """
    log_p = log_probs_of(rows)
    w = weights(log_p[..., 0], rows.keep, rows.weight)
    over = tuple(range(int(grouped), w.dim()))
    total, q = total_over(w, over), mean_row(log_p.exp(), w, over)
    k = q.shape[-1]
    if loss == USAGE["Diversity"]:
        h = -(q * q.clamp_min(torch.finfo(q.dtype).tiny).log()).sum(-1)
        return (k - h.exp()) / k, total
    f = mean_row(_largest(_logits_of(rows).detach()), w, over) if rows.other is None else rows.other
    all_choices = f.sum(-1, keepdim=True)
    return k * (f / torch.where(all_choices == 0, 1, all_choices) * q).sum(-1), total


def _largest(x: Tensor) -> Tensor:
    """The one-hot of each row's largest element; zeros where nothing is allowed."""
    top, index = x.max(-1, keepdim=True)
    each = torch.arange(x.shape[-1], device=x.device)
    return ((each == index) & (top > -math.inf)).to(x.dtype)


def reduced(loss: Tensor, keep: Tensor | None, weight: Tensor | None, reduction: str) -> Tensor:
    """w l, or sum(w l), or sum(w l) / sum(w), over what is kept; w is 1 without a weight. The mean of nothing is 0."""
    if keep is None and weight is None:
        if reduction == "none":
            return loss
        if reduction == "sum":
            return loss.sum()
        if is_plain(loss):
            return loss.mean() if loss.numel() else loss.sum()
        return loss.sum() / torch.ones_like(loss).sum().clamp_min(1)  # a size may be known at run time only
    w = weights(loss, keep, weight)
    loss = times(w, loss)
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / _or_one(w.sum())


def weights(like: Tensor, keep: Tensor | None, weight: Tensor | None) -> Tensor:
    """The weight of every element, 0 where it is left out, at the dtype of ``like``."""
    return without(torch.ones_like(like) if weight is None else weight.to(like.dtype), keep, 0)


def mean_row(x: Tensor, weight: Tensor, over: tuple[int, ...]) -> Tensor:
    """The weighted mean of ``(*batch, K)`` over some dimensions of the batch, weights ``batch``; 0 where no weight is.

    No dimensions are flattened into one: of a DTensor whose shards are uneven that is not possible.
    """
    total = total_over(weight, over).unsqueeze(-1)
    return total_over(times(weight.unsqueeze(-1), x), over) / _or_one(total)


def total_over(x: Tensor, over: tuple[int, ...]) -> Tensor:
    """The sum over some dimensions, which may be none."""
    return x.sum(over) if over else x


def _or_one(total: Tensor) -> Tensor:
    return torch.where(total == 0, 1, total)


def log_probs_of(rows: Rows) -> Tensor:
    """log softmax of x in the compute dtype; a row that does not count is uniform."""
    return log_probs(_logits_of(rows))


def _logits_of(rows: Rows) -> Tensor:
    return without(masked(rows.x.to(compute_dtype(rows.x.dtype)), rows.mask), rows.keep, 0)


def _other_log_probs(rows: Rows) -> Tensor:
    return log_probs(masked(rows.other.to(compute_dtype(rows.other.dtype)), rows.other_mask))


def without(t: Tensor, keep: Tensor | None, fill: float) -> Tensor:
    """Rows, or numbers of rows, with ``fill`` in the place of those that do not count."""
    return t if keep is None else t.masked_fill(~(keep if keep.dim() == t.dim() else keep.unsqueeze(-1)), fill)
