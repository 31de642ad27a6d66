"""Seeds made from seeds, and the noise of single columns, as operations. Neither has a gradient.

As one node of a graph they stay exact: a compiler sees none of the 64-bit products, which wrap.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softdraw import noise
from softdraw.operators.draws import aligned
from softdraw.operators.operator import Operation


def _fold_in(seed: Tensor, id: Tensor) -> Tensor:
    if seed.is_cpu and seed.dim() == id.dim() == 0:
        return torch.full((), noise.fold_number(int(seed), int(id)), dtype=torch.int64, device="cpu")
    return noise.fold_in(seed, id)


def _fold_in_fake(seed: Tensor, id: Tensor) -> Tensor:
    return id.new_empty(torch.broadcast_shapes(seed.shape, id.shape))


def _fold_in_vmap(info: Any, in_dims: tuple, *inputs: Tensor) -> tuple[Tensor, int]:
    return fold_in(*_side_by_side(in_dims, inputs)), 0


fold_in = Operation("fold_in", "(Tensor seed, Tensor id) -> Tensor", _fold_in, _fold_in_fake, _fold_in_vmap)


def conditional(seed: Tensor) -> Tensor:
    """The seed of the noise that rules use besides the draw's own."""
    return noise.conditional(seed, fold_in)


def _noise_at(seed: Tensor, rows: Tensor, index: Tensor, stream: Tensor, dtype: torch.dtype, uniform: bool) -> Tensor:
    u = noise.uniform_at(seed, rows, index.clamp_min(0), stream, dtype)
    return (u if uniform else noise.gumbel_of(u)).masked_fill(index < 0, torch.nan)


def _noise_at_fake(
    seed: Tensor, rows: Tensor, index: Tensor, stream: Tensor, dtype: torch.dtype, uniform: bool
) -> Tensor:
    return index.new_empty(torch.broadcast_shapes(seed.shape, rows.shape, index.shape), dtype=dtype)


def _noise_at_vmap(info: Any, in_dims: tuple, *inputs: Any) -> tuple[Tensor, int]:
    return noise_at(*_side_by_side(in_dims[:4], inputs[:4]), *inputs[4:]), 0


noise_at = Operation(
    "noise_at",
    "(Tensor seed, Tensor rows, Tensor index, Tensor stream, ScalarType dtype, bool uniform) -> Tensor",
    _noise_at,
    _noise_at_fake,
    _noise_at_vmap,
)


def _side_by_side(in_dims: tuple, inputs: tuple) -> list[Tensor]:
    """The inputs with the mapped dimension in front where they have it, so that they broadcast."""
    rank = 1 + max(x.dim() - (d is not None) for x, d in zip(inputs, in_dims, strict=True))
    return [aligned(x, d, rank) for x, d in zip(inputs, in_dims, strict=True)]
