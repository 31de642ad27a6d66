"""How a call is cut into programs, and where its rows lie in memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_WHOLE = 2**14  # columns of the widest row that one program holds
_SPLIT = 2**12  # columns of a split of a wider one
_TILE = 2**10  # elements of the smallest tile
_PER_WARP = 2**9  # elements that a warp works on, 16 a thread
_MOST_WARPS = 16


class Tile(NamedTuple):
    """What one program works on, how many programs that makes, and their warps."""

    rows: int
    cols: int  # a power of two from 4
    splits: int  # of a row
    programs: int
    warps: int

    @property
    def constants(self) -> dict[str, int]:
        """The shape as kernels take it."""
        return {"R": self.rows, "Q": self.cols // 4}


def tile(rows: int, width: int, dtype: torch.dtype) -> Tile:
    """Several narrow rows, or one that fits the registers, or a split of a wider one; less of it in float64."""
    if dtype == torch.float64:
        return _tile(rows, width, _WHOLE // 4, _SPLIT // 2, _PER_WARP // 2)
    return _tile(rows, width, _WHOLE, _SPLIT, _PER_WARP)


def noise_tile(rows: int, width: int) -> Tile:
    """Noise needs no whole rows: small tiles."""
    return _tile(rows, width, _SPLIT // 2, _SPLIT // 2, _PER_WARP // 2)


def _tile(rows: int, width: int, whole: int, split: int, per_warp: int) -> Tile:
    cols = max(4, 1 << (width - 1).bit_length()) if width <= whole else split
    together, splits = max(1, _TILE // cols), -(-width // cols)
    warps = min(_MOST_WARPS, max(4, together * cols // per_warp))
    return Tile(together, cols, splits, -(-rows // together) * splits, warps)


class Layout(NamedTuple):
    """Rows numbered over two batch dimensions, outer and inner: what kernels are told about strides."""

    inner: int  # rows in the inner dimension
    strides: tuple[int, ...]  # (outer, inner, column) of every operand
    constants: dict[str, bool]


def layout_of(dense: list[Tensor], mask: Tensor | None) -> Layout | None:
    """The layout of operands of one shape; None if their batch does not come down to two dimensions."""
    operands = dense if mask is None else [*dense, mask]
    shape, steps = dense[0].shape, [t.stride() for t in operands]
    dims: list[tuple[int, list[int]]] = []  # size, and the step of every operand
    for i, n in enumerate(shape[:-1]):
        step = [s[i] for s in steps]
        if dims and all(before == n * now for before, now in zip(dims[-1][1], step, strict=True)):
            dims[-1] = (dims[-1][0] * n, step)
        elif n > 1:
            dims.append((n, step))
    if len(dims) > 2:
        return None
    nothing = (1, [0] * len(operands))
    (_, outer), (inner, near) = [nothing, nothing, *dims][-2:]
    strides = tuple(zip(outer, near, (s[-1] for s in steps), strict=True))
    aligned = all(n % 4 == 0 for n in (shape[-1], *(n for s in strides[: len(dense)] for n in s[:2])))
    unit = all(s[2] == 1 for s in strides[: len(dense)])
    constants = {"FLAT": len(dims) < 2, "UNIT": unit, "ALIGNED": aligned and unit}
    flat = tuple(n for s in strides for n in s)
    return Layout(inner, flat if mask is not None else (*flat, 0, 0, 0), constants)


def each(x: Tensor, batch: torch.Size) -> tuple[Tensor, bool]:
    """A row operand as one value or as one for each row in order, and whether it is the latter."""
    return (x, False) if x.numel() == 1 else (flat(x, batch), True)


def flat(x: Tensor, batch: torch.Size) -> Tensor:
    """A row operand as one value for each row, in order."""
    return x.expand(*batch, 1).reshape(-1)
