"""Tiles of a linear layer's logits on the CPU, compiled: this file turns operands into what csrc/call.h takes.

Both functions equal those of ``tile_reference``.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

from softdraw.arguments import compute_dtype
from softdraw.kernels import tile_reference
from softdraw.kernels.native import STORAGE, TILE, address, advice, function
from softdraw.kernels.tile_reference import Best, Key, Law

_CODES = {getattr(torch, name): code for name, code in STORAGE.items()}


def take(so_far: Best, x: Tensor, key: Key) -> None:
    """Take a tile of logits into what is carried, in its place."""
    rows, seed = key.rows.contiguous(), key.seed.contiguous()
    mask = None if key.mask is None else key.mask.contiguous()
    at = (x.data_ptr(), 0, 0, address(mask), seed.data_ptr(), rows.data_ptr())
    _run("tile_take", x, (*at, so_far.numbers.data_ptr(), so_far.column.data_ptr(), 0.0), key.col_start, seed.dim() > 0)


def turn(
    x: Tensor, h: Tensor, mask: Tensor | None, law: Law, share: float | Tensor, less: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradient weight (share h - less) of a tile, in the place of its logits, and its sums ``(rows, 1)``. A law
    without a tau."""
    assert law.tau is None
    assert not isinstance(share, Tensor)
    numbers = torch.cat((law.top, law.scale, less, less), -1).double()
    mask = None if mask is None else mask.contiguous()
    at = (x.data_ptr(), h.data_ptr(), x.data_ptr(), address(mask), 0, 0, numbers.data_ptr(), 0, share)
    _run("tile_turn", x, at, 0, False)
    return x, numbers[:, 3:].to(less.dtype)


def _run(name: str, x: Tensor, at: tuple, col_start: int, seeds: bool) -> None:
    assert x.is_contiguous()
    function(name)(TILE.pack(*at, *x.shape, _CODES[x.dtype], col_start, seeds, torch.get_num_threads()))


@functools.cache
def agrees(dtype: torch.dtype) -> bool:
    """Whether the kernels give what plain torch gives, asked once for a dtype. A warning says so where they do not."""
    within = {torch.float64: 1e-10, torch.float32: 1e-4}.get(dtype, 1e-2)
    with torch.inference_mode(mode=False), torch.no_grad():
        for name, ours, theirs in _results(dtype):
            if not torch.allclose(ours, theirs, within, within, equal_nan=True):
                why = f"the compiled {name} of tiles in {dtype} differs from it. {advice()}"
                warnings.warn(f"softdraw draws from layers with plain torch: {why}", RuntimeWarning, stacklevel=2)
                return False
    return True


def _results(dtype: torch.dtype) -> Iterator[tuple[str, Tensor, Tensor]]:
    """The same numbers by this body and by plain torch: rows with a mask, and one that is NaN."""
    wide = compute_dtype(dtype)
    x = torch.linspace(-4, 4, 6 * 39).view(6, 39).sin().mul(3).to(dtype)
    x[4, 2], mask, rows = torch.nan, torch.arange(39).expand(6, 39) % 5 > 0, torch.arange(6).unsqueeze(-1)
    ours, theirs = tile_reference.best(6, x.device), tile_reference.best(6, x.device)
    for col_start in (0, 39):
        key = Key(torch.tensor(7), rows, mask if col_start else None, col_start)
        take(ours, x, key)
        tile_reference.take(theirs, x, key)
    drawn = torch.arange(6) != 4
    yield "scores", ours.numbers[drawn], theirs.numbers[drawn]
    yield "index", ours.column[drawn].double(), theirs.column[drawn].double()
    top = x.to(wide).logsumexp(-1, keepdim=True)
    law, less = Law(top, torch.ones_like(top)), top / 3
    made = turn(x.clone(), x.clone(), mask, law, 0.5, less)
    for name, mine, same in zip(
        ("gradient", "sums"), made, tile_reference.turn(x.clone(), x.clone(), mask, law, 0.5, less), strict=True
    ):
        yield name, mine.to(wide)[drawn], same.to(wide)[drawn]
