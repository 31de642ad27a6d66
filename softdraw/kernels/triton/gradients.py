"""The gradient of a soft draw from the draw itself: dx = y (g - <g, y>) / tau."""

# What is constant has capitals, and Triton reads `if` and `else` by its own rules:
# ruff: noqa: N803
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

from softdraw.kernels.triton.tiles import at, cut, fold, inside, temperature

_BOUND = ["rows", "cols", "inner", "splits", "tau"]
_STRIDES = [f"{x}_{step}" for x in ("out", "in", "grad") for step in ("outer", "inner", "col")]


@triton.jit(do_not_specialize=[*_BOUND, *_STRIDES])
def jacobian(
    out, y, grad, taus, dots, tau, rows, cols, inner, splits,
    out_outer, out_inner, out_col, in_outer, in_inner, in_col, grad_outer, grad_inner, grad_col,
    OP: tl.constexpr, R: tl.constexpr, Q: tl.constexpr, T: tl.constexpr, FLAT: tl.constexpr, UNIT: tl.constexpr,
    EACH_TAU: tl.constexpr,
):  # fmt: skip
    """dx of R whole rows or of a split; or "part", the part of <g, y> in one split. Without mass no gradient passes."""
    tile, split = cut(splits)
    first = split.to(tl.int64) * (4 * Q)
    row = tile.to(tl.int64) * R + tl.arange(0, R)
    kept = row < rows
    there = inside(kept, cols, first, Q, UNIT)
    p = tl.load(at(y, row, first, inner, in_outer, in_inner, in_col, Q, FLAT, UNIT), there, 0).to(T)
    g = tl.load(at(grad, row, first, inner, grad_outer, grad_inner, grad_col, Q, FLAT, UNIT), there, 0).to(T)
    g = tl.where(p == 0, 0, g)
    if OP == "part":
        tl.store(dots + (row * splits + split)[None, :, None], fold(p * g), kept[None, :, None])
    else:
        dot = fold(p * g) if dots is None else tl.load(dots + row, kept, 0)[None, :, None]
        dx = p * (g - dot) * (1 / temperature(taus, tau, row, kept, EACH_TAU))
        place = at(out, row, first, inner, out_outer, out_inner, out_col, Q, FLAT, UNIT)
        tl.store(place, dx.to(out.dtype.element_ty), there)
