"""The tilt of k of n items: the shift c of logits at which the probabilities sigmoid(x + c) sum to k."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from softdraw.numerics import value_of
from softdraw.tensors import is_plain

_MARGIN = 40.0  # logits beyond the outermost finite one: a bit is practically certain there
_STEPS = 40  # of the search: a bisection alone would find the tilt
_NEAR = 1e-3  # standard deviations of the number of ones by which the tilt may miss k: the law needs no better


class Size(NamedTuple):
    """How many items are chosen: k of every row, an int or int64 ``batch``, and the largest of them."""

    each: int | Tensor
    most: int

    @property
    def column(self) -> int | Tensor:
        """k, to compare with ``(..., n)``."""
        return self.each if isinstance(self.each, int) else self.each.unsqueeze(-1)


def limit(x: Tensor, k: Size) -> Tensor:
    """The logits; where at least k items are at +inf, those of the limit law, which is uniform over these items."""
    infinite = x.detach() == math.inf
    several = infinite.any(-1, keepdim=True) & (infinite.sum(-1, keepdim=True) >= k.column)
    if is_plain(x) and x.is_cpu and not bool(several.any()):
        return x
    uniform = torch.where(infinite, 0.0, -math.inf).to(x.dtype)
    return torch.where(several, value_of(uniform, x), x)


def tilt(x: Tensor, k: int | Tensor, near: float = _NEAR) -> Tensor:
    """c, ``(..., 1)`` in float64, for which sigmoid(x + c) sums to about k; without gradient. It misses k by less than
    ``near`` standard deviations of the number of ones. A compiled graph has the search as one node."""
    if torch.compiler.is_compiling():
        column = torch.full((), k, device=x.device) if isinstance(k, int) else k
        return _tilt(x.detach(), column.expand(*x.shape[:-1], 1), near)
    return search(x, k, near)


@torch.library.custom_op("softdraw::subset_tilt", mutates_args=())
def _tilt(x: Tensor, k: Tensor, near: float) -> Tensor:
    return search(x, k, near)


@_tilt.register_fake
def _(x: Tensor, k: Tensor, near: float) -> Tensor:
    return x.new_empty((*x.shape[:-1], 1), dtype=torch.float64)


@_tilt.register_vmap
def _(info: Any, in_dims: tuple, x: Tensor, k: Tensor, near: float) -> tuple[Tensor, int]:
    at, k_at, _ = in_dims
    return _tilt(x if at is None else x.movedim(at, 0), k if k_at is None else k.movedim(k_at, 0), near), 0


def search(x: Tensor, k: int | Tensor, near: float) -> Tensor:
    """The tilt itself.

    Newton's steps on the log-odds of the share of ones, which is linear where all logits are equal, kept in a bracket
    that is halved where a step leaves it. Items at +inf are chosen, those at -inf are not.
    """
    y = x.detach().double()
    finite = y.isfinite()
    count = finite.sum(-1, keepdim=True)
    goal = k - (y == math.inf).sum(-1, keepdim=True)
    inside = (goal > 0) & (goal < count)
    y_or_0 = y.masked_fill(~finite, 0)
    low = -y.masked_fill(~finite, -math.inf).amax(-1, keepdim=True).nan_to_num(0, 0, 0) - _MARGIN
    high = -y.masked_fill(~finite, math.inf).amin(-1, keepdim=True).nan_to_num(0, 0, 0) + _MARGIN
    wanted = torch.where(inside, goal / count, 0.5).logit()
    c = (wanted - y_or_0.sum(-1, keepdim=True) / count.clamp_min(1)).clamp(low, high)
    ends = torch.where(goal <= 0, low, high)
    for _ in range(_STEPS):
        z = y + c
        in_it = (z > 0) & finite
        s = torch.sigmoid(-z.abs()).masked_fill(~finite, 0)
        lower, upper = s.masked_fill(in_it, 0).sum(-1, keepdim=True), s.masked_fill(~in_it, 0).sum(-1, keepdim=True)
        whole = in_it.sum(-1, keepdim=True) - goal
        miss, spread = whole + (lower - upper), (s * (1 - s)).sum(-1, keepdim=True)
        if is_plain(y) and y.is_cpu and bool((~inside | (miss**2 <= near**2 * spread) | (miss == 0)).all()):
            break
        low, high = torch.where(miss > 0, low, c), torch.where(miss > 0, c, high)
        share = (miss + goal) / count
        newton = (wanted - share.logit()) * (miss + goal) * (1 - share) / spread
        # In a wide gap behind the first k the sum moves as lower e^d - upper e^-d, so that Newton's steps would be 1.
        in_gap = (whole == 0) & (lower + upper < 0.1) & (lower > 0) & (upper > 0)
        new = c + torch.where(in_gap, (upper / lower).log() / 2, newton)
        c = torch.where(miss == 0, c, torch.where((new >= low) & (new <= high), new, (low + high) / 2))
    return torch.where(inside, c, ends)
