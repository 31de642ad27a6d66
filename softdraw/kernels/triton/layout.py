"""How a call is cut into programs, and where its rows lie in memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_WHOLE = 2**14  # columns of the widest row that one program holds
_SPLIT = 2**12  # columns of a split of a wider one
PARTS = 128  # splits that are combined at a time
_TILE = 2**9  # elements of the smallest tile
_PER_WARP = 2**9  # elements that a warp works on, 16 a thread
_MOST_WARPS = 32
_STEPS = ("outer", "inner", "col")


class Tile(NamedTuple):
    """What one program works on, how many programs that makes, and their warps."""

    rows: int
    cols: int  # a power of two from 4
    splits: int  # of a row
    programs: int
    warps: int

    @property
    def named(self) -> dict[str, int | None]:
        """The shape as kernels take it."""
        return {"R": self.rows, "Q": self.cols // 4, "splits": self.splits if self.splits > 1 else None}

    @property
    def by_row(self) -> Tile:
        """The same with one program for all splits of a row, which takes one after the other."""
        return self._replace(splits=1, programs=self.programs // self.splits)


def tile(rows: int, width: int, dtype: torch.dtype) -> Tile:
    """Several narrow rows, or one that fits the registers, or a split of a wider one; less of it in float64."""
    if dtype == torch.float64:
        return _tile(rows, width, _WHOLE // 4, _SPLIT // 2, _PER_WARP // 2)
    return _tile(rows, width, _WHOLE, _SPLIT, _PER_WARP)


def index_tile(rows: int, width: int, dtype: torch.dtype) -> Tile:
    """An index reads a row once however it is split: sooner, where more programs share the work."""
    if dtype == torch.float64:
        return _tile(rows, width, _WHOLE // 8, _SPLIT // 2, _PER_WARP // 2)
    return _tile(rows, width, _WHOLE // 2, _SPLIT, _PER_WARP)


def rule_tile(rows: int, width: int, dtype: torch.dtype) -> Tile:
    """A gradient of a rule holds several values of each element: rows of fewer columns."""
    if dtype == torch.float64:
        return _tile(rows, width, _WHOLE // 8, _SPLIT // 2, _PER_WARP // 4)
    return _tile(rows, width, _WHOLE // 2, _SPLIT, _PER_WARP // 2)


def rao_tile(rows: int, width: int, dtype: torch.dtype) -> Tile:
    """So do those with noise, and the noise's own."""
    if dtype == torch.float64:
        return _tile(rows, width, _WHOLE // 16, _SPLIT // 4, _PER_WARP // 4)
    return _tile(rows, width, _WHOLE // 4, _SPLIT // 2, _PER_WARP // 2)


def noise_tile(rows: int, width: int) -> Tile:
    """Noise needs no whole rows: small tiles."""
    return _tile(rows, width, _SPLIT // 2, _SPLIT // 2, _PER_WARP // 2)


def _tile(rows: int, width: int, whole: int, split: int, per_warp: int) -> Tile:
    cols = max(4, 1 << (width - 1).bit_length()) if width <= whole else split
    splits = -(-width // cols)
    together = max(1, _TILE // cols) if splits == 1 else 1
    warps = min(_MOST_WARPS, max(1, together * cols // per_warp))
    return Tile(together, cols, splits, -(-rows // together) * splits, warps)


def layout_of(dense: dict[str, Tensor], mask: Tensor | None) -> dict[str, int] | None:
    """What kernels are told of the strides of operands of one shape, whose rows are numbered over two batch dimensions,
    outer and inner; None if the batch does not come down to two.
    """
    operands = dense if mask is None else {**dense, "mask": mask}
    steps = [t.stride() for t in operands.values()]
    shape = next(iter(dense.values())).shape
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
    strides: dict[str, tuple[int, int, int]] = dict.fromkeys(("out", "in", "grad", "mask"), (0, 0, 0))
    strides.update(zip(operands, zip(outer, near, (s[-1] for s in steps), strict=True), strict=True))
    named = {f"{x}_{to}": n for x, step in strides.items() for to, n in zip(_STEPS, step, strict=True)}
    units = {name: _unit(shape[-1], step) for name, step in strides.items()}
    unit = min(units[name] for name in dense)
    return {"inner": inner, "FLAT": int(len(dims) < 2), "UNIT": unit, "MASK_UNIT": units["mask"], **named}


def _unit(width: int, step: tuple[int, int, int]) -> int:
    """How many columns of an operand surely lie together: 4, 1 or 0."""
    if step[2] != 1:
        return 0
    return 4 if all(n % 4 == 0 for n in (width, *step[:2])) else 1


def each(x: Tensor, batch: torch.Size) -> tuple[Tensor, bool]:
    """A row operand as one value or as one for each row in order, and whether it is the latter."""
    return (x, False) if x.numel() == 1 else (flat(x, batch), True)


def flat(x: Tensor, batch: torch.Size) -> Tensor:
    """A row operand as one value for each row, in order."""
    return x.expand(*batch, 1).reshape(-1)
