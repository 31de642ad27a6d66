"""Gumbel-softmax draws of rows that are split over ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

from softdraw.arguments import compute_dtype
from softdraw.checks import check_bool
from softdraw.distributed import merge
from softdraw.distributed.blocks import (
    Block,
    Key,
    leader,
    one_hot,
    own_total,
    prepare,
    prepare_key,
    prepare_tau,
    relative,
    scores,
)
from softdraw.distributed.collectives import gather, total


def gumbel_softmax(
    block: Tensor,
    col_start: int,
    group: ProcessGroup | None = None,
    tau: float | Tensor = 1.0,
    hard: bool = False,
    *,
    seed: int | Tensor,
    rows: int | Tensor = 0,
    mask: Tensor | None = None,
) -> Tensor:
    r"""This rank's block of a draw of :func:`softdraw.gumbel_softmax` from rows whose categories are split over ranks.

    .. math:: y_j = \frac{e^{(\theta_j + G_j - m) / \tau}}{\sum_r Z_r}, \qquad
        m = \max_r m_r, \quad Z_r = \sum_{j \in r} e^{(\theta_j + G_j - m) / \tau}

    Args:
        block: this rank's logits, ``(..., n)``, any floating dtype. n may differ between ranks, and may be 0.
        col_start: the index of its first category in the whole row.
        group: the ranks that hold the row; default: all.
        tau: as for :func:`softdraw.gumbel_softmax`; the same on every rank.
        hard: return the block of the one-hot, in place of that of the relaxed draw.
        seed: an int or a 0-d int64 tensor, or a seed for every sample; the same on every rank.
        rows: as for :func:`softdraw.gumbel_softmax`; the same on every rank.
        mask: bool, True = allowed, broadcasts to the block. Padding of the vocabulary must be forbidden by it.

    Returns:
        Tensor with the shape and dtype of the block. One all-gather, of a score, an index and a sum: 12 bytes a row and
        rank (24 for float64).

    Gradient:
        That of :func:`softdraw.gumbel_softmax`. One all-reduce of 4 bytes a row, or of 12 where tau has a gradient,
        which every rank then has whole. It cannot be differentiated again.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> block = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.5]])  # this rank's: here the only one, with all columns
        >>> softdraw.distributed.gumbel_softmax(block, 0, tau=0.5, seed=0)
        tensor([[0.1062, 0.0451, 0.8488],
                [0.9554, 0.0062, 0.0384]])

    Source:
        Jang, Gu and Poole (2017), "Categorical reparameterization with Gumbel-softmax", eqs. 1 and 2.
    """
    check_bool("hard", hard)
    own = prepare(block, col_start, group, mask)
    t = prepare_tau(tau, own)
    return relaxed(own, prepare_key(own, seed, rows), t, hard)[..., : block.shape[-1]]


def relaxed(block: Block, key: Key | None, tau: Tensor, hard: bool) -> Tensor:
    """The draw from checked arguments; without noise if there is no key."""
    seed, rows = (None, None) if key is None else key
    return _Relaxed.apply(block.x, tau, seed, rows, block.mask, block.col_start, hard, block.group)  # pyright: ignore


class _Relaxed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x, tau, seed, rows, mask, col_start, hard, group = inputs
        block, key = Block(x, mask, col_start, group), None if seed is None else Key(seed, rows)
        s = scores(block, key)
        at, score = leader(s)
        every = gather((score, at + col_start, own_total(s, score, tau)), group)
        index, best = merge.best(every[1], every[0])
        top, whole, _ = merge.shares(every[0], every[2], _flat(tau))
        ctx.how = col_start, hard, group
        if hard:
            y = one_hot(block, index, best).to(x.dtype)
            ctx.save_for_backward(tau, x, seed, rows, mask, top, whole)
        else:
            y = _shares_of(s, top, whole, tau).to(x.dtype)
            ctx.save_for_backward(tau, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple:  # pyright: ignore[reportIncompatibleMethodOverride]
        (tau, x, *rest), (col_start, hard, group) = ctx.saved_tensors, ctx.how
        p = x.to(compute_dtype(x.dtype))
        if hard:
            seed, rows, mask, top, whole = rest
            s = scores(Block(x, mask, col_start, group), None if seed is None else Key(seed, rows))
            p = _shares_of(s, top, whole, tau)
        dx, dtau = _vjp(p, grads[0], tau, group, ctx.needs_input_grad[1])
        return dx.to(x.dtype), dtau, *[None] * 6


def _flat(tau: Tensor) -> Tensor:
    """tau without the dimension of the categories."""
    return tau.squeeze(-1) if tau.dim() else tau


def _shares_of(s: Tensor, top: Tensor, whole: Tensor, tau: Tensor) -> Tensor:
    """The block of softmax(s / tau); a row with nothing allowed is zero, a broken one NaN."""
    over = torch.where(whole == 0, 1, whole).to(s.dtype)
    return relative(s, top, tau) / over.unsqueeze(-1)


def _vjp(p: Tensor, grad: Tensor, tau: Tensor, group: Any, learns: bool) -> tuple[Tensor, Tensor | None]:
    """y (g - <g, y>) / tau, and where tau learns -<v, log y> / tau with that v: three sums in place of one."""
    g = grad.to(p.dtype).masked_fill(p == 0, 0)
    sums = [(p * g).sum(-1, dtype=torch.float64)]
    if learns:
        log_p = p.clamp_min(torch.finfo(p.dtype).tiny).log()
        sums += [(p * g * log_p).sum(-1, dtype=torch.float64), (p * log_p).sum(-1, dtype=torch.float64)]
    mean, *more = (x.unsqueeze(-1) for x in total([x.to(p.dtype) for x in sums], group))
    dx = p * (g - mean) / tau
    return dx, (-(more[0] - mean * more[1]) / tau).sum_to_size(tau.shape) if learns else None
