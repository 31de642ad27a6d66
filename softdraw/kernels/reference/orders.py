r"""Orders in plain torch: the law of Plackett and Luce, whose first m items are drawn without replacement.

Items have scores x and weights w = exp(x). An order (b_1, ..., b_m) is built from its front, each item with a
probability proportional to its weight among those that are left:

.. math:: \log p(b) = \sum_i (x_{b_i} - L_i), \qquad
          L_i = \log \Bigl(\sum_{j \ge i} w_{b_j} + \sum_{j \notin b} w_j\Bigr)

The L are summed from the back, where everything is positive: none is the difference of others. It is also the order in
which clocks T_j ~ Exp(w_j) ring, and the clocks given the order are sums of independent times between the rings,

.. math:: T_{b_i} = T_{b_{i - 1}} + e^{-L_i} E_i, \qquad T_j = T_{b_m} + E_j / w_j \quad (j \notin b), \qquad
          E \sim \mathrm{Exp}(1)

and z = -log T are Gumbel scores x + G that are sorted as b. Where fewer than m items are allowed, an order ends in -1.

Source: Plackett (1975); Luce (1959); Gadetsky, Struminsky, Robinson, Quadrianto and Vetrov (2020), "Low-variance
black-box gradient estimates for the Plackett-Luce distribution".
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from softdraw.numerics import log_probs, logsumexp, times, value_of
from softdraw.tensors import is_plain


class Left(NamedTuple):
    """What is left at each step of an order: ``(..., m)``, but for ``chosen``."""

    there: Tensor  # bool: the order has an item in this place
    at: Tensor  # the item, 0 where there is none
    scores: Tensor  # of the item, very low where there is none or its score is infinite
    total: Tensor  # L: the logarithm of the weights that are left, this item's among them
    chosen: Tensor  # bool ``(..., n)``: the items of the order


def log_density(x: Tensor, order: Tensor) -> Tensor:
    """log p of orders ``(..., m)`` of items with scores x ``(..., n)``, in the dtype of x; -inf for what is no order of
    these items, NaN for a row with NaN. Items at +inf come first, each of them as likely: the limit of large scores."""
    infinite = x.detach() == math.inf
    left = _left(x.masked_fill(infinite, -math.inf), order)
    step = (left.scores - left.total).masked_fill(left.there & (_of(x, left) == -math.inf), -math.inf)
    if not (is_plain(x) and x.is_cpu) or bool(infinite.any()):
        # Items of equal scores among themselves, before all others. The gradient is that of large scores.
        among = value_of(torch.where(infinite, 0.0, -math.inf).to(x.dtype), x).masked_fill(~infinite, -math.inf)
        of_them, at_inf = _left(among, order), _of(infinite, left) & left.there
        waiting = infinite.sum(-1, keepdim=True) > at_inf.cumsum(-1) - at_inf.long()
        first = torch.where(at_inf, of_them.scores - of_them.total, -math.inf)
        step = torch.where(waiting, first, step)
    legal = _no_gaps(order, left, (x != -math.inf).sum(-1))
    total = step.masked_fill(~left.there, 0).sum(-1)
    return total.masked_fill(~legal, -math.inf).masked_fill(x.isnan().any(-1), math.nan)


def condition(x: Tensor, order: Tensor, g: Tensor) -> Tensor:
    """Gumbel scores of items with scores x, given that ``order`` begins with the largest of them, from independent
    noise ``g``, all ``(..., n)``; differentiable in x."""
    left = _left(x, order)
    between = (-g.gather(-1, left.at) - left.total).masked_fill(~left.there, _lowest(x))
    rings = _sums(between.flip(-1)).flip(-1)
    last = rings[..., -1:] if order.shape[-1] else torch.full_like(x[..., :1], _lowest(x))
    allowed = x != -math.inf
    after = -_add(last, -(g + x.masked_fill(~allowed, 0)))
    place = torch.where(left.there, left.at, x.shape[-1])
    ranked = torch.cat((after, after[..., :1]), -1).scatter(-1, place, -rings)[..., :-1]
    return ranked.masked_fill(~allowed, -math.inf)


def entropy(x: Tensor, m: int) -> Tensor:
    """The entropy of orders of length m, exactly; O(2^n n)."""
    reached, log_p = _by_sets(x, m)
    return times(reached.sum(0), times(log_p.exp(), -log_p).sum(-1)).sum(-1)


def divergence(x: Tensor, y: Tensor, m: int) -> Tensor:
    """The divergence of the law of scores y from that of scores x, exactly; O(2^n n)."""
    reached, log_p = _by_sets(x, m)
    log_q = _by_sets(y, 0)[1]
    apart = (log_p - log_q).masked_fill(log_p == -math.inf, 0)
    return times(reached.sum(0), times(log_p.exp(), apart).sum(-1)).sum(-1)


def marginals(x: Tensor, m: int) -> Tensor:
    """The probability that an item has a place, ``(..., m, n)``, exactly; O(2^n n)."""
    reached, log_p = _by_sets(x, m)
    return (reached.movedim(0, -2).unsqueeze(-1) * log_p.exp().unsqueeze(-3)).sum(-2)


def _by_sets(x: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """What the next item depends on is the set of those before it. The probabilities of the sets before each of m
    steps, ``(m, ..., sets)``, and of the next item given each, in logarithms, ``(..., sets, n)``. A set is a number
    whose bits are its items."""
    n = x.shape[-1]
    sets, items = torch.arange(2**n, device=x.device), torch.arange(n, device=x.device).unsqueeze(-1)
    taken = (sets >> items) & 1 == 1  # (n, sets)
    log_p = log_probs(x.unsqueeze(-2).masked_fill(taken.T, -math.inf))
    by_item = log_p.exp().mT
    before = (sets ^ (1 << items)).expand(by_item.shape)  # the set that an item was added to
    reached = [(sets == 0).to(x.dtype).expand(*x.shape[:-1], -1)]
    for _ in range(m - 1):
        moved = (reached[-1].unsqueeze(-2) * by_item).gather(-1, before)
        reached.append(moved.masked_fill(~taken, 0).sum(-2))
    return torch.stack(reached[:m]) if m else by_item.new_empty((0, *by_item.shape[:-2], 2**n)), log_p


def _left(x: Tensor, order: Tensor) -> Left:
    n, batch = x.shape[-1], order.shape[:-1]
    there = (order >= 0) & (order < n)
    at = torch.where(there, order, 0)
    place = torch.where(there, order, n)
    chosen = torch.zeros((*batch, n + 1), dtype=torch.bool, device=x.device).scatter(-1, place, True)[..., :n]
    x = x.expand(*batch, n)
    y = x.gather(-1, at)
    y = y.masked_fill(~there | (y == -math.inf), _lowest(x))
    rest = x.masked_fill(chosen, -math.inf)
    none = (rest == -math.inf).all(-1, keepdim=True)
    behind = logsumexp(rest).masked_fill(none, _lowest(x))
    return Left(there, at, y, _sums(torch.cat((y, behind), -1))[..., :-1], chosen)


def _of(x: Tensor, left: Left) -> Tensor:
    """What the items of the order have, of ``(..., n)``."""
    return x.expand(*left.at.shape[:-1], x.shape[-1]).gather(-1, left.at)


def _no_gaps(order: Tensor, left: Left, allowed: Tensor) -> Tensor:
    """Whether these are orders: no item twice, and -1 in the last places alone, and there where nothing is left."""
    m = order.shape[-1]
    count = left.there.sum(-1)
    once = left.chosen.sum(-1) == count
    in_front = (left.there == (torch.arange(m, device=order.device) < count.unsqueeze(-1))).all(-1)
    known = (left.there | (order == -1)).all(-1)
    return once & in_front & known & (count >= allowed.clamp_max(m))


def _sums(x: Tensor) -> Tensor:
    """y_i = log sum_{j >= i} exp(x_j), each of the two halves of a sum by itself: the window of a step is that of two
    of the step before, so that there are log2 of the length steps, of which each has every derivative."""
    width = 1
    while width < x.shape[-1]:
        x = torch.cat((_add(x[..., :-width], x[..., width:]), x[..., -width:]), -1)
        width *= 2
    return x


def _add(a: Tensor, b: Tensor) -> Tensor:
    """log(exp(a) + exp(b)). The second derivative of torch.logaddexp is NaN where they are far apart."""
    return torch.where(a > b, a + softplus(b - a), b + softplus(a - b))


def _lowest(x: Tensor) -> float:
    """A logarithm that is nothing beside any other, and finite, so that derivatives are."""
    return torch.finfo(x.dtype).min / 4
