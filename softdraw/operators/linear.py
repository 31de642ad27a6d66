"""A linear layer and a draw from its logits in one, over tiles of the logits: rows of a block of categories.

The forward pass makes a tile of logits, takes it into what each row carries (``tile_reference``), and makes the next in
its place. The backward pass makes the tiles again. With h = C u, the gradient u of the value at every code, g that of
the log-probability, p the probabilities and D the one-hot, the gradient for the logits is

    ZGR                       p (h - h_D) / 2 - p g                + D (...)
    straight-through          q (h - <q, h>) / tau - p g           + D (...),  q = softmax(z / tau)

where z are the logits, or for the straight-through Gumbel-softmax the logits with their noise. What stands at D makes
the sum over the categories 0. In the formula of ZGR, p (h - <p, h>) / 2 + <h, D - p> (D - p) / 2, the <p, h> of the
first part and that of the second cancel away from D: one pass over the tiles does. The others need <q, h> first, and
make the tiles once more.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from softdraw import kernels
from softdraw.arguments import compute_dtype
from softdraw.kernels import tile_reference
from softdraw.kernels.tile_reference import LOGIT, SCORE, TOP, TOTAL, Key
from softdraw.operators.operator import Operation

_ROWS, _WIDTH, _TILE = 1024, 64, 2**20  # of a tile: rows at most, what its width is a multiple of, elements at most
_PART = 64  # a tile has at most this part of the logits, for a backward pass holds up to four of them


class Layer(NamedTuple):
    """The layer's input ``(N, D)``, weight ``(K, D)`` and bias ``(K,)``, and the dtype that it computes in."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    dtype: torch.dtype


class Draws(NamedTuple):
    """What the draws are made with: a seed, or seeds ``(N, 1)``, ids ``(N, 1)``, what is allowed ``(..., K)``, and the
    column of the first category."""

    seed: Tensor
    rows: Tensor
    mask: Tensor | None
    col_start: int

    def of(self, tile: Tile) -> Key:
        """Those of a tile. A mask that broadcasts is copied for one block of categories at most."""
        seed, rows, mask, col_start = self
        if mask is not None:
            mask = mask[..., tile.cols].reshape(rows.shape[0], -1)[tile.rows]
        seed = seed[tile.rows] if seed.dim() else seed
        return Key(seed, rows[tile.rows], mask, col_start + tile.cols.start)


class Tile(NamedTuple):
    """Which part of the logits a tile is, its logits, and the operands of its product."""

    rows: slice
    cols: slice
    logits: Tensor
    x: Tensor
    weight: Tensor


def tiles(layer: Layer) -> Iterator[Tile]:
    """The logits, one tile at a time, each in the place of the one before it: all rows of a block of categories, then
    the next block."""
    x, weight, bias, dtype = layer
    n, k = x.shape[0], weight.shape[0]
    size = max(1, min(_TILE, n * k // _PART))
    high = min(n, _ROWS, size)
    wide = min(k, max(_WIDTH, size // max(high, 1) // _WIDTH * _WIDTH))
    x, room = x.to(dtype), x.new_empty(high * wide, dtype=dtype)
    for first in range(0, k if n else 0, wide):
        cols = slice(first, min(first + wide, k))
        w, b = weight[cols].to(dtype), None if bias is None else bias[cols].to(dtype)
        for start in range(0, n, high):
            rows = slice(start, min(start + high, n))
            out = room[: (rows.stop - start) * len(w)].view(-1, len(w))
            if b is None:
                torch.mm(x[rows], w.t(), out=out)
            else:
                torch.addmm(b, x[rows], w.t(), out=out)
            yield Tile(rows, cols, out, x[rows], w)


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seed: Tensor,
    rows: Tensor,
    mask: Tensor | None,
    col_start: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """What every row carries at the end: its numbers in float64, and the column of its best score."""
    draws, n = Draws(seed, rows, mask, col_start), x.shape[0]
    take = _taking(x.device, dtype)
    numbers, column = tile_reference.best(n, x.device)
    for tile in tiles(Layer(x, weight, bias, dtype)):
        mine = tile_reference.Best(numbers[tile.rows], column[tile.rows])
        take(mine, tile.logits, draws.of(tile))
    return numbers, column


def result(numbers: Tensor, column: Tensor, col_start: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The index of every row, log p of it in the compute dtype, and the logsumexp in float64."""
    bad = numbers[:, SCORE].isnan()
    index = torch.where(bad | (column < 0), -1, column - col_start)
    log_total = numbers[:, TOTAL].log()
    log_prob = (numbers[:, LOGIT] - numbers[:, TOP]).nan_to_num(nan=-math.inf) - log_total.nan_to_num(neginf=0.0)
    logsumexp = (numbers[:, TOP] + log_total).masked_fill(bad, math.nan)
    return index, log_prob.masked_fill(bad, math.nan).to(compute_dtype(dtype)), logsumexp


def with_missing(value: Tensor, index: Tensor, log_prob: Tensor) -> Tensor:
    """The value where there is a draw; a row without one has that of an empty sum, or NaN as its logits."""
    none = torch.where(log_prob.isnan(), log_prob, 0).to(value.dtype).unsqueeze(-1)
    return torch.where(index.unsqueeze(-1) < 0, none, value)


def in_batch(t: Tensor, batch: torch.Size) -> Tensor:
    """Rows ``(N, ...)`` in the shape of the batch; as they are where that is theirs, for FSDP2 warns of views."""
    return t if len(batch) == 1 else t.view((*batch, *t.shape[1:]))


def fast(device: torch.device, dtype: torch.dtype) -> Any:
    """The compiled body of tiles, where there is one and it is right."""
    body = kernels.body(device, dtype).tiles
    return body if body is not None and body.agrees(dtype) else None


def _taking(device: torch.device, dtype: torch.dtype) -> Callable[..., None]:
    if (body := fast(device, dtype)) is not None:
        return body.take
    return functools.partial(tile_reference.take, gumbel=kernels.body(device, dtype).gumbel)


def _forward_fake(
    x: Tensor, weight: Tensor, bias: Any, seed: Any, rows: Any, mask: Any, col_start: int, dtype: Any
) -> Any:
    n = x.shape[0]
    return x.new_empty((n, 4), dtype=torch.float64), x.new_empty(n, dtype=torch.int64)


INPUTS = (
    "Tensor x, Tensor weight, Tensor? bias, Tensor seed, Tensor rows, Tensor? mask, SymInt col_start, ScalarType dtype"
)
linear = Operation("linear_draw", f"({INPUTS}) -> (Tensor, Tensor)", _forward, _forward_fake)
