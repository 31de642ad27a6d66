"""Draws in Triton. A program scores a tile, reduces it and writes it: whole rows, or one of the splits of a wider row.

A split row takes three kernels: ``part`` stores the sums of each split, ``combine`` brings a row's splits together,
and ``write`` makes the noise again and writes; a hard draw is an index (``index_kernels``) and ``one_hot``. tau, widths
and strides are run-time arguments that specialise nothing.

NaN and +inf need no test in relaxed draws: a maximum passes NaN over, but their exponentials are NaN, and so the row's
sum is, and every y. An index has no sum: there NaN counts as +inf, and a row whose maximum is infinite has no index.
"""

# What is constant has capitals, and Triton reads `if` and `else` by its own rules:
# ruff: noqa: N803
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

from softdraw.kernels.triton.philox import gumbel
from softdraw.kernels.triton.tiles import (
    INF,
    at,
    columns,
    cut,
    first_place,
    fold,
    highest,
    inside,
    over,
    relative,
    row_value,
    temperature,
)

_BOUND = ["draws", "rows", "cols", "quad", "inner", "splits", "tau"]
_STRIDES = [f"{x}_{step}" for x in ("out", "in", "grad", "mask") for step in ("outer", "inner", "col")]


@triton.jit
def scores(
    logits, mask, seeds, ids, heat, row, kept, stream, quad, first, there, inner,
    in_outer, in_inner, in_col, mask_outer, mask_inner, mask_col,
    Q: tl.constexpr, T: tl.constexpr, FLAT: tl.constexpr, UNIT: tl.constexpr, MASK_UNIT: tl.constexpr,
    EACH_SEED: tl.constexpr,
):  # fmt: skip
    """Logits, and logits plus noise times ``heat`` (None: 1), (4, R, Q): -inf where forbidden and outside the row,
    whose own first column is 4 ``quad``."""
    # Loaded first, so that they arrive while the noise is made.
    x = tl.load(at(logits, row, first, inner, in_outer, in_inner, in_col, Q, FLAT, UNIT), there, -INF).to(T)
    s = x
    if seeds is not None:
        id = row if ids is None else tl.load(ids + row, mask=kept, other=0)
        seed = row_value(seeds, row, kept, EACH_SEED)
        g = gumbel(seed, id[None, :, None], stream, quad + (first >> 2), Q, T)
        s = x + (g if heat is None else heat * g)
    if mask is not None:
        allowed = tl.load(at(mask, row, first, inner, mask_outer, mask_inner, mask_col, Q, FLAT, MASK_UNIT), there, 0)
        x, s = tl.where(allowed != 0, x, -INF), tl.where(allowed != 0, s, -INF)
    return x, s


@triton.jit
def _split_scores(
    logits, mask, seeds, ids, cols, quad, inner, splits,
    in_outer, in_inner, in_col, mask_outer, mask_inner, mask_col,
    Q: tl.constexpr, T: tl.constexpr, FLAT: tl.constexpr, UNIT: tl.constexpr, MASK_UNIT: tl.constexpr,
    EACH_SEED: tl.constexpr,
):  # fmt: skip
    """The scores of this program's split of a row, with the row, the split, its first column and what is inside."""
    tile, split = cut(splits)
    first = split.to(tl.int64) * (4 * Q)
    row = tile.to(tl.int64) + tl.arange(0, 1)
    kept = row >= 0
    there = inside(kept, cols, first, Q, UNIT)
    _, s = scores(
        logits, mask, seeds, ids, None, row, kept, tl.zeros((1, 1, 1), tl.uint32), quad, first, there, inner,
        in_outer, in_inner, in_col, mask_outer, mask_inner, mask_col,
        Q, T, FLAT, UNIT, MASK_UNIT, EACH_SEED,
    )  # fmt: skip
    return row, kept, split, first, there, s


@triton.jit
def leader(s, first, Q: tl.constexpr):
    """The maximum, which is +inf where anything is NaN, and the smallest column that has it, which is -1 where the
    maximum is infinite."""
    s = tl.where(s < INF, s, INF)
    top = highest(s)
    return top, tl.where(tl.abs(top) < INF, first + first_place(s, top, Q), -1)


@triton.jit
def _one_hot(top, best, first, Q: tl.constexpr):
    """1 at the best column, 0 elsewhere; NaN in a row that had NaN or +inf."""
    return tl.where(top == INF, float("nan"), tl.where(first + columns(Q) == best, 1.0, 0.0))


@triton.jit(do_not_specialize=[*_BOUND, *_STRIDES])
def whole(
    out, logits, grad, mask, seeds, ids, taus, tau, rows, cols, quad, inner,
    out_outer, out_inner, out_col, in_outer, in_inner, in_col,
    grad_outer, grad_inner, grad_col, mask_outer, mask_inner, mask_col,
    OP: tl.constexpr, R: tl.constexpr, Q: tl.constexpr, T: tl.constexpr, FLAT: tl.constexpr, UNIT: tl.constexpr,
    MASK_UNIT: tl.constexpr, EACH_SEED: tl.constexpr, EACH_TAU: tl.constexpr,
):  # fmt: skip
    """soft, hard or hard_backward of R whole rows."""
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    kept = row < rows
    there = inside(kept, cols, 0, Q, UNIT)
    _, s = scores(
        logits, mask, seeds, ids, None, row, kept,
        tl.zeros((1, 1, 1), tl.uint32), quad, tl.zeros((), tl.int64), there, inner,
        in_outer, in_inner, in_col, mask_outer, mask_inner, mask_col,
        Q, T, FLAT, UNIT, MASK_UNIT, EACH_SEED,
    )  # fmt: skip
    if OP == "hard":
        top, best = leader(s, 0, Q)
        y = _one_hot(top, best, 0, Q)
    else:
        tau = temperature(taus, tau, row, kept, EACH_TAU)
        e = relative(s, highest(s), tau)
        y = e * over(fold(e))
    if OP == "hard_backward":
        g = tl.load(at(grad, row, 0, inner, grad_outer, grad_inner, grad_col, Q, FLAT, UNIT), there, 0)
        g = tl.where(y == 0, 0, g.to(T))
        y = y * (g - fold(y * g)) * (1 / tau)
    place = at(out, row, 0, inner, out_outer, out_inner, out_col, Q, FLAT, UNIT)
    tl.store(place, y.to(out.dtype.element_ty), there)


@triton.jit(do_not_specialize=["cols", "inner", "splits", *_STRIDES[:3]])
def one_hot(
    out, tops, ats, cols, inner, splits, out_outer, out_inner, out_col,
    Q: tl.constexpr, FLAT: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """One split of a one-hot row, from its highest score and the place of that."""
    tile, split = cut(splits)
    first = split.to(tl.int64) * (4 * Q)
    row = tile.to(tl.int64) + tl.arange(0, 1)
    y = _one_hot(tl.load(tops + row)[None, :, None], tl.load(ats + row)[None, :, None], first, Q)
    place = at(out, row, first, inner, out_outer, out_inner, out_col, Q, FLAT, UNIT)
    tl.store(place, y.to(out.dtype.element_ty), inside(row >= 0, cols, first, Q, UNIT))


@triton.jit(do_not_specialize=[*_BOUND, *_STRIDES[3:]])
def part(
    tops, totals, dots, worsts, logits, grad, mask, seeds, ids, taus, tau, cols, quad, inner, splits,
    in_outer, in_inner, in_col, grad_outer, grad_inner, grad_col, mask_outer, mask_inner, mask_col,
    Q: tl.constexpr, T: tl.constexpr, FLAT: tl.constexpr, UNIT: tl.constexpr, MASK_UNIT: tl.constexpr,
    EACH_SEED: tl.constexpr, EACH_TAU: tl.constexpr,
):  # fmt: skip
    """What one split comes to: maximum, sum of e, and where a gradient is given the sum of e g over what is finite.

    Whether a category has mass is known when all splits are: an infinite or NaN g must spread from one that has, and
    not from one that has none. ``worsts`` is the highest score at which it would.
    """
    row, kept, split, first, there, s = _split_scores(
        logits, mask, seeds, ids, cols, quad, inner, splits,
        in_outer, in_inner, in_col, mask_outer, mask_inner, mask_col,
        Q, T, FLAT, UNIT, MASK_UNIT, EACH_SEED,
    )  # fmt: skip
    slot = (row * splits + split)[None, :, None]
    top = highest(s)
    e = relative(s, top, temperature(taus, tau, row, kept, EACH_TAU))
    tl.store(tops + slot, top)
    tl.store(totals + slot, fold(e))
    if dots is not None:
        g = tl.load(at(grad, row, first, inner, grad_outer, grad_inner, grad_col, Q, FLAT, UNIT), there, 0)
        g = g.to(T)
        finite = tl.abs(g) < INF
        tl.store(dots + slot, fold(e * tl.where(finite, g, 0)))
        tl.store(worsts + slot, highest(tl.where(finite, -INF, s)))


@triton.jit(do_not_specialize=["tau", "splits"])
def combine(
    tops, totals, dots, worsts, row_tops, row_totals, row_dots, taus, tau, splits,
    BLOCK: tl.constexpr, EACH_TAU: tl.constexpr,
):  # fmt: skip
    """Maximum, sum and <g, y> of a row from what its splits came to, carried along online; one program a row."""
    number = tl.program_id(0).to(tl.int64)
    tau = tau if taus is None else tl.load(taus + (number if EACH_TAU else 0))
    top = tl.full((), -INF, tops.dtype.element_ty)
    worst, total, dot = top, tl.exp2(top), tl.exp2(top)  # -inf, 0, 0
    for first in range(0, splits, BLOCK):
        at = number * splits + first + tl.arange(0, BLOCK)
        there = first + tl.arange(0, BLOCK) < splits
        t = tl.load(tops + at, there, -INF)
        new = tl.maximum(top, tl.max(t, 0))
        shrink, weight = relative(top, new, tau), relative(t, new, tau)
        total = total * shrink + tl.sum(tl.load(totals + at, there, 0) * weight, 0)
        if dots is not None:
            dot = dot * shrink + tl.sum(tl.load(dots + at, there, 0) * weight, 0)
            worst = tl.maximum(worst, tl.max(tl.load(worsts + at, there, -INF), 0))
        top = new
    tl.store(row_tops + number, top)
    tl.store(row_totals + number, total)
    if dots is not None:
        mass = relative(worst, top, tau) * over(total)  # exactly the y that ``write`` gives that category
        tl.store(row_dots + number, tl.where(mass == 0, dot * over(total), float("nan")))


@triton.jit(do_not_specialize=[*_BOUND, *_STRIDES])
def write(
    out, logits, grad, mask, seeds, ids, tops, totals, dots, taus, tau, cols, quad, inner, splits,
    out_outer, out_inner, out_col, in_outer, in_inner, in_col,
    grad_outer, grad_inner, grad_col, mask_outer, mask_inner, mask_col,
    Q: tl.constexpr, T: tl.constexpr, FLAT: tl.constexpr, UNIT: tl.constexpr, MASK_UNIT: tl.constexpr,
    EACH_SEED: tl.constexpr, EACH_TAU: tl.constexpr,
):  # fmt: skip
    """One split of a soft draw, or of the gradient where ``dots`` is given, from the row's maximum and sums."""
    row, kept, _split, first, there, s = _split_scores(
        logits, mask, seeds, ids, cols, quad, inner, splits,
        in_outer, in_inner, in_col, mask_outer, mask_inner, mask_col,
        Q, T, FLAT, UNIT, MASK_UNIT, EACH_SEED,
    )  # fmt: skip
    tau = temperature(taus, tau, row, kept, EACH_TAU)
    y = relative(s, tl.load(tops + row)[None, :, None], tau) * over(tl.load(totals + row)[None, :, None])
    if dots is not None:
        g = tl.load(at(grad, row, first, inner, grad_outer, grad_inner, grad_col, Q, FLAT, UNIT), there, 0)
        y = y * (tl.where(y == 0, 0, g.to(T)) - tl.load(dots + row)[None, :, None]) * (1 / tau)
    place = at(out, row, first, inner, out_outer, out_inner, out_col, Q, FLAT, UNIT)
    tl.store(place, y.to(out.dtype.element_ty), there)
