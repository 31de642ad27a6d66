"""What the backward pass of a linear layer and draw in one has beside its tiles: what arrives, and what is summed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from softdraw.arguments import compute_dtype
from softdraw.operators.linear import Layer, Tile

_BLOCK = 1024  # rows


class Sums:
    """The gradients of a layer, summed over tiles; those that nobody wants are empty."""

    def __init__(self, layer: Layer, wanted: tuple[bool, bool, bool]) -> None:
        x, weight, _, dtype = layer
        self._wide = compute_dtype(dtype)
        self._layer, self.wanted = layer, wanted
        self.x = x.new_zeros(x.shape if wanted[0] else 0, dtype=self._wide)
        self.weight = torch.empty_like(weight) if wanted[1] else weight.new_empty(0)
        self.bias = weight.new_zeros(weight.shape[0] if wanted[2] else 0, dtype=self._wide)
        if wanted[1] and not len(x):
            self.weight.zero_()
        self._piece = self.weight

    def add(self, tile: Tile, v: Tensor) -> None:
        """The part of a tile, whose logits have the gradient ``v``."""
        of_x, of_weight, of_bias = self.wanted
        if of_x:
            _add_product(self.x[tile.rows], v, tile.weight)
        if of_weight:
            self._add_to_weight(tile, v)
        if of_bias:
            self.bias[tile.cols].add_(v.sum(0, dtype=self._wide))

    def _add_to_weight(self, tile: Tile, v: Tensor) -> None:
        """A block of the weight is summed in the compute dtype over all rows, then rounded once."""
        first, whole = tile.rows.start == 0, self.weight[tile.cols]
        if whole.dtype == self._wide:
            self._piece = whole
        elif first:
            self._piece = whole.new_empty(whole.shape, dtype=self._wide)
        _add_product(self._piece, v.t(), tile.x, anew=first)
        if self._piece is not whole and tile.rows.stop == len(self._layer.x):
            whole.copy_(self._piece)

    def add_at(self, index: Tensor, coefficient: Tensor) -> None:
        """``coefficient`` ``(N, 1)`` at the index of each row."""
        x, weight, _, _ = self._layer
        coefficient = coefficient.masked_fill(index.unsqueeze(-1) < 0, 0)
        of_x, of_weight, of_bias = self.wanted
        for rows in blocks(len(x) if of_x else 0):
            codes = weight[index[rows].clamp_min(0)].to(self._wide)
            self.x[rows].add_(codes.mul_(coefficient[rows]))
        if of_weight:
            add_rows(self.weight, index, x, coefficient)
        if of_bias:
            self.bias.index_add_(0, index.clamp_min(0), coefficient.squeeze(-1))

    def all(self) -> tuple[Tensor, Tensor, Tensor]:
        """Those of x, of the weight and of the bias, each in its dtype."""
        x, weight, bias, _ = self._layer
        return self.x.to(x.dtype), self.weight, self.bias.to(weight.dtype if bias is None else bias.dtype)


def _add_product(out: Tensor, a: Tensor, b: Tensor, anew: bool = False) -> None:
    """out + a b, or a b where it begins anew."""
    if out.dtype == a.dtype:
        torch.addmm(out, a, b, beta=0 if anew else 1, out=out)
    elif anew:
        out.copy_(a @ b)
    else:
        out.add_(a @ b)


def blocks(n: int) -> Iterator[slice]:
    """n rows, some at a time, so that what is made of them takes little memory."""
    for start in range(0, n, _BLOCK):
        yield slice(start, min(start + _BLOCK, n))


def add_rows(out: Tensor, index: Tensor, rows: Tensor, coefficient: Tensor | None = None) -> None:
    """Adds each row, times its coefficient, at its index, none at -1. Rows of one index are summed in the compute
    dtype, then rounded."""
    wide = compute_dtype(out.dtype)
    order = index.argsort(stable=True)
    order = order[(index < 0).sum() :]
    if out.dtype == wide:
        for part in blocks(len(order)):
            at = order[part]
            some = rows[at].to(wide)
            out.index_add_(0, index[at], some if coefficient is None else some.mul_(coefficient[at]))
        return
    places, count = index[order].unique_consecutive(return_counts=True)
    ends = count.cumsum(0)
    for part in blocks(len(places)):
        first = int(ends[part.start] - count[part.start])
        at = order[first : int(ends[part.stop - 1])]
        whole = out[places[part]].to(wide)
        which = torch.arange(len(whole), device=out.device).repeat_interleave(count[part])
        for some in blocks(len(at)):
            more = rows[at[some]].to(wide)
            whole.index_add_(0, which[some], more if coefficient is None else more.mul_(coefficient[at[some]]))
        out[places[part]] = whole.to(out.dtype)


class Arriving:
    """What arrives at the one-hot, h = u C, a tile at a time, and at the log-probability."""

    def __init__(self, u: Tensor | None, codebook: Tensor | None, g: Tensor | None, index: Tensor, dtype: Any) -> None:
        self.wide = compute_dtype(dtype)
        self.u = None if u is None else u.to(dtype)
        self._codebook, self.index = codebook, index
        self.g = None if g is None else g.to(self.wide).unsqueeze(-1)
        self._room = index.new_empty(0, dtype=dtype)

    @property
    def of_log_prob_alone(self) -> bool:
        """Whether nothing arrives at the value."""
        return self.u is None

    def of_codebook(self) -> Tensor:
        """The gradient of the codebook: what arrives at each row, added up at its index."""
        assert self._codebook is not None
        out = torch.zeros_like(self._codebook)
        if self.u is not None:
            add_rows(out, self.index, self.u)
        return out

    def h(self, tile: Tile) -> Tensor:
        """h of a tile, in the place of the last one."""
        if self.u is None or self._codebook is None:
            return torch.zeros_like(tile.logits)
        if self._room.numel() < tile.logits.numel():
            self._room = torch.empty_like(tile.logits).flatten()
        out = self._room[: tile.logits.numel()].view(tile.logits.shape)
        codes = self._codebook[tile.cols].to(out.dtype)
        return torch.mm(self.u[tile.rows], codes.t(), out=out)

    def at_index(self) -> Tensor:
        """h of the drawn category, ``(N, 1)``; 0 where there is none."""
        if self.u is None or self._codebook is None:
            return torch.zeros_like(self.index, dtype=self.wide).unsqueeze(-1)
        h = torch.empty_like(self.index, dtype=self.wide).unsqueeze(-1)
        for rows in blocks(len(h)):
            codes = self._codebook[self.index[rows].clamp_min(0)].to(self.wide)
            h[rows] = codes.mul_(self.u[rows].to(self.wide)).sum(-1, keepdim=True)
        return h.masked_fill(self.index.unsqueeze(-1) < 0, 0)
