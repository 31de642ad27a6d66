"""What a fused linear layer and draw do with one tile of logits, in plain torch: rows of a block of categories.

A forward pass carries five numbers for each row from tile to tile: the best score so far, its logit, the largest logit,
the sum of exp(logit - largest), and the index of the best score. A backward pass turns a tile of logits and one of what
arrives at the one-hot into the gradient for the logits. Both work in the compute dtype of the tile.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from softdraw import noise
from softdraw.arguments import compute_dtype
from softdraw.numerics import masked

SCORE, LOGIT, TOP, TOTAL = range(4)  # the columns of Best.numbers


Gumbel = Callable[..., Tensor]  # the operation of that name, of any body


class Key(NamedTuple):
    """What keys the noise of a tile: the seed, ids ``(rows, 1)``, what may be drawn, and the first column."""

    seed: Tensor  # one, or (rows, 1)
    rows: Tensor
    mask: Tensor | None
    col_start: int


class Best(NamedTuple):
    """What a forward pass carries for each row: numbers in float64 ``(rows, 4)``, and the column of the best score."""

    numbers: Tensor
    column: Tensor


class Law(NamedTuple):
    """Weights exp((z - top) / tau) scale of a tile with scores z: all but tau are one for each row, ``(rows, 1)``."""

    top: Tensor
    scale: Tensor
    tau: Tensor | None = None  # None: 1


def best(rows: int, device: torch.device) -> Best:
    """Nothing seen so far. A score of NaN stays: such a row has no draw."""
    numbers = torch.tensor((-math.inf, -math.inf, -math.inf, 0.0), dtype=torch.float64, device=device)
    return Best(numbers.repeat(rows, 1), torch.full((rows,), -1, dtype=torch.int64, device=device))


def take(so_far: Best, x: Tensor, key: Key, gumbel: Gumbel = noise.gumbel) -> None:
    """Take a tile of logits into what is carried, in its place."""
    x = masked(x.to(compute_dtype(x.dtype)), key.mask)
    numbers, column = so_far
    score, at = (x + noise_of(x, key, gumbel)).max(-1)
    score = score.double().masked_fill(score == math.inf, math.nan)
    better = score > numbers[:, SCORE]
    column.copy_(torch.where(better, at + key.col_start, column))
    logit = x.gather(-1, at.unsqueeze(-1)).squeeze(-1)
    numbers[:, LOGIT] = torch.where(better, logit, numbers[:, LOGIT])
    numbers[:, SCORE] = torch.maximum(numbers[:, SCORE], score)
    top = torch.maximum(numbers[:, TOP], x.amax(-1))
    less = top.masked_fill(top == -math.inf, 0)
    total = torch.exp(x - less.to(x.dtype).unsqueeze(-1)).sum(-1)
    numbers[:, TOTAL] = numbers[:, TOTAL] * torch.exp(numbers[:, TOP] - less) + total
    numbers[:, TOP] = top


def noise_of(x: Tensor, key: Key, gumbel: Gumbel = noise.gumbel) -> Tensor:
    """The noise of a tile in the compute dtype."""
    stream = torch.zeros((), dtype=torch.int64, device=x.device)
    return gumbel(key.seed, key.rows, x.shape[-1], key.col_start, stream, compute_dtype(x.dtype))


def turn(
    x: Tensor, h: Tensor, mask: Tensor | None, law: Law, share: float | Tensor, less: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradient weight (share h - less) of a tile, in the dtype of ``x``, and its sums ``(rows, 1)``.

    ``h`` is what arrives at the one-hot, ``less`` one number for each row. Both tiles may be overwritten.
    """
    weight = weights(x, law)
    v = weight.mul_(h.to(weight.dtype).mul_(share).sub_(less))
    if mask is not None:
        v.masked_fill_(~(mask | law.top.isnan()), 0)  # a row that is NaN is NaN in every category
    return v.to(x.dtype), v.sum(-1, keepdim=True)


def weights(z: Tensor, law: Law) -> Tensor:
    """exp((z - top) / tau) scale, in the place of z where that has the compute dtype."""
    e = z.to(law.top.dtype).sub_(law.top)
    e = e if law.tau is None else e.div_(law.tau)
    return e.exp_().mul_(law.scale)
