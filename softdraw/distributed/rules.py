"""Exact draws with the gradient of a rule, from rows that are split over ranks.

With pi_tau = softmax(x / tau), D the one-hot of the category i that was drawn, and g what arrives:

    straight-through    v = pi_tau (g - s) / tau                                  s = <pi_tau, g>
    ZGR                 v = 1/2 pi (g - s) + 1/2 (g_i - s) (D - pi)               s = <pi, g>
    ReinMax             v = 2 m (g - <m, g>) - 1/2 pi (g - s)                     m = (pi_tau + D) / 2
    gapped              v = y (g - <y, g>) / tau                                  y = e / sum e, e of the gapped logits

Each needs one or two sums over the whole row, which one all-reduce adds up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

from softdraw.arguments import KernelRule, compute_dtype
from softdraw.checks import given
from softdraw.distributed import merge
from softdraw.distributed.blocks import (
    Block,
    Key,
    drawn,
    one_hot,
    own_total,
    prepare,
    prepare_key,
    prepare_tau,
    relative,
)
from softdraw.distributed.collectives import gather, total
from softdraw.distributed.relaxed import relaxed
from softdraw.numerics import masked_for_draw

_SERVED = "ZGR, StraightThrough, ReinMax, GappedStraightThrough, StraightThroughGumbel and GumbelSoftmax"


class HasKernel(Protocol):
    """A pathwise rule, as ``softdraw.ZGR()``."""

    def kernel(self) -> KernelRule | None:
        """The rule's formula and its numbers, by name."""
        ...


def draw(
    block: Tensor,
    col_start: int,
    group: ProcessGroup | None = None,
    rule: HasKernel | None = None,
    *,
    seed: int | Tensor,
    rows: int | Tensor = 0,
    mask: Tensor | None = None,
) -> Tensor:
    r"""This rank's block of an exact draw, with the gradient of a rule, from rows that are split over ranks.

    .. math:: D \sim p_\theta \quad \text{forward}, \qquad \hat g(\theta, D, \partial f / \partial D) \quad
              \text{backward}

    Args:
        block, col_start, group, seed, rows, mask: as for :func:`softdraw.distributed.gumbel_softmax`.
        rule: ``ZGR()`` (the default), ``StraightThrough``, ``ReinMax``, ``GappedStraightThrough``,
            ``StraightThroughGumbel`` or ``GumbelSoftmax``. The others need whole rows.

    Returns:
        Tensor with the shape and dtype of the block: that part of the one-hot of :func:`softdraw.draw` (of
        ``GumbelSoftmax`` of the relaxed draw). One all-gather of at most 20 bytes a row and rank (40 for float64).

    Gradient:
        That of the rule, for the block. One all-reduce of 4 bytes a row; of 8 for ``ZGR``, ``ReinMax`` and
        ``GappedStraightThrough``, whose formulas have two sums over the row. It cannot be differentiated again.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> block = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.5]])  # this rank's: here the only one, with all columns
        >>> softdraw.distributed.draw(block, 0, rule=softdraw.ReinMax(tau=1.1), seed=0)
        tensor([[0., 0., 1.],
                [1., 0., 0.]])

    Source:
        Each rule names its own.
    """
    own = prepare(block, col_start, group, mask)
    kernel = KernelRule("zgr") if rule is None else checked_kernel(rule)
    return drawn_with(kernel, own, prepare_key(own, seed, rows))[..., : block.shape[-1]]


def checked_kernel(rule: Any) -> KernelRule:
    """The formula of a rule that serves rows split over ranks."""
    found = rule.kernel() if hasattr(rule, "kernel") and not isinstance(rule, type) else None
    name = None if found is None else found.name
    if found is None or not (name in _RULES or name == "gumbel_softmax" or (name == "gumbel_rao" and found.draws == 1)):
        raise TypeError(
            f"rule must be one of {_SERVED} where the categories are split over ranks, got {given(rule)}: take one of "
            "them, or give every rank whole rows"
        )
    return found


def drawn_with(kernel: KernelRule, block: Block, key: Key) -> Tensor:
    """The draw from checked arguments."""
    tau = prepare_tau(kernel.tau, block)
    if kernel.name in ("gumbel_softmax", "gumbel_rao"):
        return relaxed(block, key, tau, hard=kernel.name == "gumbel_rao")
    inputs = block.x, tau, *key, block.mask, block.col_start, kernel.name, kernel.gap, block.group
    return _Drawn.apply(*inputs)  # pyright: ignore


class _Drawn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x, tau, seed, rows, mask, col_start, name, gap, group = inputs
        block = Block(x, mask, col_start, group)
        at, score = (t.squeeze(0) for t in drawn(block, Key(seed, rows), 1))
        wide = block.wide()
        own = wide.amax(-1)
        taus = _RULES[name][0](tau)
        every = gather((score, at + col_start, own, *(own_total(wide, own, t) for t in taus)), group)
        index, best = merge.best(every[1], every[0])
        flat = [t.squeeze(-1) if isinstance(t, Tensor) and t.dim() else t for t in taus]
        wholes = [merge.shares(every[2], part, t)[1] for part, t in zip(every[3:], flat, strict=True)]
        ctx.how = col_start, name, gap, group
        ctx.save_for_backward(x, tau, mask, index, best, every[2].amax(0), *wholes)
        return one_hot(block, index, best).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x, tau, mask, index, best, top, *wholes), (col_start, name, gap, group) = ctx.saved_tensors, ctx.how
        wide = masked_for_draw(x.to(compute_dtype(x.dtype)), mask)
        forbidden = wide == -math.inf
        g = grads[0].to(wide.dtype).masked_fill(forbidden, 0)
        hard = one_hot(Block(x, mask, col_start, group), index, best)
        dx = _RULES[name][1](_Row(wide, top, wholes, hard, g, tau, gap, group))
        return dx.masked_fill(forbidden, 0).masked_fill(best.isnan().unsqueeze(-1), math.nan).to(x.dtype), *[None] * 8


class _Row:
    """What a rule's formula takes."""

    def __init__(
        self, x: Tensor, top: Tensor, wholes: list, hard: Tensor, g: Tensor, tau: Tensor, gap: float, group: Any
    ) -> None:
        self.x, self.top, self.wholes, self.hard, self.g, self.tau, self.gap = x, top, wholes, hard, g, tau, gap
        self.group = group

    def softmax(self, number: int, tau: float | Tensor = 1.0) -> Tensor:
        """softmax(x / tau), whose total is the one of that number."""
        whole = self.wholes[number]
        over = torch.where(whole == 0, 1, whole).to(self.x.dtype)
        return relative(self.x, self.top, tau) / over.unsqueeze(-1)

    def sums(self, *parts: Tensor) -> list[Tensor]:
        """The sums of these products over the whole row, ``(*batch, 1)``."""
        own = [part.sum(-1, dtype=torch.float64).to(self.x.dtype) for part in parts]
        return [x.unsqueeze(-1) for x in total(own, self.group)]


def _straight_through(row: _Row) -> Tensor:
    p = row.softmax(0, row.tau)
    (s,) = row.sums(p * row.g)
    return p * (row.g - s) / row.tau


def _zgr(row: _Row) -> Tensor:
    p = row.softmax(0)
    s, drawn_g = row.sums(p * row.g, row.hard * row.g)
    return (p * (row.g - s) + (drawn_g - s) * (row.hard - p)) / 2


def _reinmax(row: _Row) -> Tensor:
    p, middle = row.softmax(0), (row.softmax(1, row.tau) + row.hard) / 2
    s, at_middle = row.sums(p * row.g, middle * row.g)
    return 2 * middle * (row.g - at_middle) - p * (row.g - s) / 2


def _gapped(row: _Row) -> Tensor:
    base = torch.where(row.top == -math.inf, 0, row.top).unsqueeze(-1)
    e = (torch.where(row.hard > 0, 0, (row.x - base).clamp_max(-row.gap)) / row.tau).exp()
    dot, whole = row.sums(e * row.g, e)
    whole = torch.where(whole == 0, 1, whole)
    return e / whole * (row.g - dot / whole) / row.tau


# Each rule: the temperatures at which its forward pass adds up the softmax, and its formula.
_RULES: dict[str, tuple[Callable[[Tensor], tuple], Callable[[_Row], Tensor]]] = {
    "straight_through": (lambda tau: (tau,), _straight_through),
    "zgr": (lambda tau: (1.0,), _zgr),
    "reinmax": (lambda tau: (1.0, tau), _reinmax),
    "gapped": (lambda tau: (), _gapped),
}
