"""What the backward pass of a linear layer and draw in one has beside its tiles: what arrives, and what is summed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softdraw.arguments import compute_dtype
from softdraw.operators.linear import Layer, Tile


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
        if of_x:
            self.x.add_(weight[index.clamp_min(0)].to(self._wide).mul_(coefficient))
        if of_weight:
            add_rows(self.weight, index, x.to(self._wide) * coefficient)
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


def add_rows(out: Tensor, index: Tensor, rows: Tensor) -> None:
    """Adds each row at its index, none at -1. Several of half precision at one index are rounded once."""
    there = (index >= 0).nonzero().squeeze(-1)
    index, rows = index[there], rows[there]
    if out.dtype == compute_dtype(out.dtype):
        out.index_add_(0, index, rows.to(out.dtype))
        return
    places, which = index.unique(return_inverse=True)
    whole = out[places].to(rows.dtype)
    out[places] = whole.index_add_(0, which, rows).to(out.dtype)


class Arriving:
    """What arrives at the one-hot, h = u C, a tile at a time, and at the log-probability."""

    def __init__(self, u: Tensor | None, codebook: Tensor | None, g: Tensor | None, index: Tensor, dtype: Any) -> None:
        self._wide = compute_dtype(dtype)
        self._u = None if u is None else u.to(dtype)
        self._codebook, self._index = codebook, index
        self.g = None if g is None else g.to(self._wide).unsqueeze(-1)
        self._room = index.new_empty(0, dtype=dtype)

    def h(self, tile: Tile) -> Tensor:
        """h of a tile, in the place of the last one."""
        if self._u is None or self._codebook is None:
            return torch.zeros_like(tile.logits)
        if self._room.numel() < tile.logits.numel():
            self._room = torch.empty_like(tile.logits).flatten()
        out = self._room[: tile.logits.numel()].view(tile.logits.shape)
        codes = self._codebook[tile.cols].to(out.dtype)
        return torch.mm(self._u[tile.rows], codes.t(), out=out)

    def at_index(self) -> Tensor:
        """h of the drawn category, ``(N, 1)``; 0 where there is none."""
        if self._u is None or self._codebook is None:
            return torch.zeros_like(self._index, dtype=self._wide).unsqueeze(-1)
        codes = self._codebook[self._index.clamp_min(0)].to(self._wide)
        h = codes.mul_(self._u.to(self._wide)).sum(-1, keepdim=True)
        return h.masked_fill(self._index.unsqueeze(-1) < 0, 0)
