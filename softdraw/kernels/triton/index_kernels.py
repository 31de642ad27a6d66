"""Indices of a law at a temperature in Triton, and what the law without temperature says about them, in one pass.

A program takes R whole rows, or a split of a wider one; ``combine_index`` and ``combine_law`` bring splits together. Of
the law a split has four numbers: its largest logit, how many logits equal it, and of the others' a = x - that the sum
of exp a and of a exp a. A maximum of +inf stands for NaN as well: such a row has no index, and its numbers are NaN.
"""

# What is constant has capitals, and Triton reads `if` and `else` by its own rules:
# ruff: noqa: N803
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

from softdraw.kernels.triton.draws import leader, scores
from softdraw.kernels.triton.pass_kernels import below, elements, exp_of, log_of, row_starts, times
from softdraw.kernels.triton.tiles import INF, along, columns, cut, fold, highest, inside, over, temperature

_NOWHERE = tl.constexpr(2**62)  # larger than any column
_LAST = tl.constexpr(0xFFFFFFFF)  # the largest column
_NAN = tl.constexpr(float("nan"))
NOTHING = -(2**31)  # the upper half of the key of a forbidden category
BAD = 2**31 - 1  # and of NaN or +inf
_NOTHING, _BAD = tl.constexpr(NOTHING), tl.constexpr(BAD)
_BOUND = ["draws", "rows", "cols", "quad", "inner", "splits", "tau", "start"]
_STRIDES = [f"{x}_{step}" for x in ("in", "mask") for step in ("outer", "inner", "col")]


@triton.jit
def _tempered(
    logits, mask, seeds, ids, taus, tau, number, kept, rows, cols, quad, first, inner,
    in_outer, in_inner, in_col, mask_outer, mask_inner, mask_col,
    Q: tl.constexpr, T: tl.constexpr, FLAT: tl.constexpr, UNIT: tl.constexpr, MASK_UNIT: tl.constexpr,
    EACH_SEED: tl.constexpr, EACH_TAU: tl.constexpr, ONCE: tl.constexpr,
):  # fmt: skip
    """Logits and scores of draws, whose numbers are sample * rows + row."""
    row = number if ONCE else number % rows
    stream = tl.full((1, 1, 1), 0, tl.uint32) if ONCE else (number // rows)[None, :, None]
    return scores(
        logits, mask, seeds, ids, temperature(taus, tau, row, kept, EACH_TAU), row, kept, stream, quad, first,
        inside(kept, cols, first, Q, UNIT), inner,
        in_outer, in_inner, in_col, mask_outer, mask_inner, mask_col,
        Q, T, FLAT, UNIT, MASK_UNIT, EACH_SEED,
    )  # fmt: skip


@triton.jit
def _finish(place, there, top, tops, rest, mean):
    """Writes max x, log sum exp a and sum p log p in double: 0 where the row has nothing, NaN where it has NaN."""
    spoil = tl.where(top == INF, _NAN, tl.where(top == -INF, 0.0, 1.0))
    nothing = top == -INF
    log = log_of(tops, rest)
    value = mean * over(tops + rest) - log
    tl.store(place, tl.where(nothing, 0, top * spoil).to(tl.float64), there)
    tl.store(place + 1, tl.where(nothing, 0, log * spoil).to(tl.float64), there)
    tl.store(place + 2, tl.where(nothing, 0, value * spoil).to(tl.float64), there)


@triton.jit
def _picked(top, x):
    """The logit that was drawn, in double, where the highest score is ``top``."""
    return tl.where(top == INF, _NAN, tl.where(top == -INF, -INF, x)).to(tl.float64)


@triton.jit(do_not_specialize=[*_BOUND[:-1], *_STRIDES])
def index(
    ats, tops, picks, laws, logits, mask, seeds, ids, taus, tau, draws, rows, cols, quad, inner, splits,
    in_outer, in_inner, in_col, mask_outer, mask_inner, mask_col,
    R: tl.constexpr, Q: tl.constexpr, T: tl.constexpr, FLAT: tl.constexpr, UNIT: tl.constexpr,
    MASK_UNIT: tl.constexpr, EACH_SEED: tl.constexpr, EACH_TAU: tl.constexpr, ONCE: tl.constexpr,
):  # fmt: skip
    """The place of the highest score; that score where ``tops`` is given; where ``laws`` is, the logit there and the
    numbers of the law, which is that of the first sample for all of them."""
    tile, split = cut(splits)
    first = split.to(tl.int64) * (4 * Q)
    number = tile.to(tl.int64) * R + tl.arange(0, R)
    kept = number < draws
    x, s = _tempered(
        logits, mask, seeds, ids, taus, tau, number, kept, rows, cols, quad, first, inner,
        in_outer, in_inner, in_col, mask_outer, mask_inner, mask_col,
        Q, T, FLAT, UNIT, MASK_UNIT, EACH_SEED, EACH_TAU, ONCE,
    )  # fmt: skip
    top, best = leader(s, first, Q)
    there = kept[None, :, None]
    slot = (number if splits is None else number * splits + split)[None, :, None]
    tl.store(ats + slot, best.to(tl.int64), there)
    if tops is not None:
        tl.store(tops + slot, top, there)
    if laws is not None:
        pick = fold(tl.where(first + columns(Q) == best, x, 0))
        highest_x = highest(tl.where(x < INF, x, INF))
        a = below(x, highest_x)
        e = exp_of(a)
        ties, rest, mean = fold(tl.where(a == 0, 1.0, 0.0).to(T)), fold(tl.where(a == 0, 0, e)), fold(times(e, a))
        summed = (kept & (number < rows))[None, :, None]
        if splits is None:
            tl.store(picks + slot, _picked(top, pick), there)
            _finish(laws + slot * 3, summed, highest_x, ties, rest, mean)
        else:
            tl.store(picks + slot, pick, there)
            tl.store(laws + slot * 4, highest_x, summed)
            tl.store(laws + slot * 4 + 1, ties, summed)
            tl.store(laws + slot * 4 + 2, rest, summed)
            tl.store(laws + slot * 4 + 3, mean, summed)


@triton.jit(do_not_specialize=["splits"])
def combine_index(tops, ats, picks, row_tops, row_ats, row_picks, splits, BLOCK: tl.constexpr):
    """The place of a row's highest score from those of its splits, and the logit there; one program a draw."""
    number = tl.program_id(0).to(tl.int64)
    top = tl.full((), -INF, tops.dtype.element_ty)
    best, pick = tl.full((), _NOWHERE, tl.int64), tl.full((), 0, tops.dtype.element_ty)
    for first in range(0, splits, BLOCK):
        at = first + tl.arange(0, BLOCK)
        t = tl.load(tops + number * splits + at, at < splits, -INF)
        a = tl.load(ats + number * splits + at, at < splits, _NOWHERE)
        new = tl.maximum(top, tl.max(t, 0))
        here = tl.min(tl.where(t == new, a, _NOWHERE), 0)
        if picks is not None:
            x = tl.load(picks + number * splits + at, at < splits, 0)
            pick = tl.where(new > top, tl.sum(tl.where(a == here, x, 0), 0), pick)
        best = tl.where(new > top, here, tl.minimum(best, here))
        top = new
    tl.store(row_ats + number, tl.where(tl.abs(top) < INF, best, -1))
    if row_tops is not None:
        tl.store(row_tops + number, top)
    if picks is not None:
        tl.store(row_picks + number, _picked(top, pick))


@triton.jit(do_not_specialize=["splits"])
def combine_law(laws, row_laws, splits, BLOCK: tl.constexpr):
    """The numbers of a row's law from those of its splits, carried along online; one program a row."""
    number = tl.program_id(0).to(tl.int64)
    top = tl.full((), -INF, laws.dtype.element_ty)
    ties, rest, mean = tl.exp2(top), tl.exp2(top), tl.exp2(top)  # 0
    for first in range(0, splits, BLOCK):
        there = first + tl.arange(0, BLOCK) < splits
        place = laws + (number * splits + first + tl.arange(0, BLOCK)) * 4
        t = tl.load(place, there, -INF)
        n, r, m = tl.load(place + 1, there, 0), tl.load(place + 2, there, 0), tl.load(place + 3, there, 0)
        new = tl.maximum(top, tl.max(t, 0))
        # Seen from a larger maximum, by d, what was a is a + d: sum e^(a + d) (a + d) is e^d (sum e^a a + d sum e^a).
        d = below(top, new)
        f = exp_of(d)
        mean = times(f, mean) + times(f * (ties + rest), d)
        rest = rest * f + tl.where(d == 0, 0, ties * f)
        ties = tl.where(d == 0, ties, 0)
        d = below(t, new)
        f = exp_of(d)
        mean += tl.sum(times(f, m) + times(f * (n + r), d), 0)
        rest += tl.sum(times(f, r) + tl.where(d == 0, 0, f * n), 0)
        ties += tl.sum(tl.where(d == 0, n, 0), 0)
        top = new
    _finish(row_laws + number * 3, number >= 0, top, ties, rest, mean)


@triton.jit(do_not_specialize=[*_BOUND, *_STRIDES])
def keys(
    out, logits, mask, seeds, ids, taus, tau, start, draws, rows, cols, quad, inner, splits,
    in_outer, in_inner, in_col, mask_outer, mask_inner, mask_col,
    R: tl.constexpr, Q: tl.constexpr, T: tl.constexpr, FLAT: tl.constexpr, UNIT: tl.constexpr,
    MASK_UNIT: tl.constexpr, EACH_SEED: tl.constexpr, EACH_TAU: tl.constexpr, ONCE: tl.constexpr,
):  # fmt: skip
    """What orders the categories of draws from ``start`` on: in float64 the scores; else integers of 64 bits that have
    the order of the scores in their upper half, and below it, since they are compared as a whole, the smaller column
    first among equal scores."""
    tile, split = cut(splits)
    first = split.to(tl.int64) * (4 * Q)
    place = tile.to(tl.int64) * R + tl.arange(0, R)
    kept = start + place < draws
    _, s = _tempered(
        logits, mask, seeds, ids, taus, tau, start + place, kept, rows, cols, quad, first, inner,
        in_outer, in_inner, in_col, mask_outer, mask_inner, mask_col,
        Q, T, FLAT, UNIT, MASK_UNIT, EACH_SEED, EACH_TAU, ONCE,
    )  # fmt: skip
    column = first + columns(Q)
    at = out + place[None, :, None] * cols + column
    there = inside(kept, cols, first, Q, UNIT)
    if tl.float64 == T:
        tl.store(at, s, there)
    else:
        bits = tl.where(s == 0, 0.0, s).to(tl.int32, bitcast=True)  # -0 equals 0
        order = bits ^ ((bits >> 31) & _BAD)  # negative floats have the order of their magnitudes
        order = tl.where(s == -INF, _NOTHING, tl.where(s < INF, order, _BAD))
        tl.store(at, (order.to(tl.int64) << 32) | (_LAST - column), there)


@triton.jit(do_not_specialize=["rows", "cols", "in_rows", "samples"])
def drawn_backward(
    out, saved, logits, mask, category, grad, samples, rows, cols, in_rows,
    R: tl.constexpr, Q: tl.constexpr, T: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """dx = sum_s g_s (e_s - p) - h p (log p - v), for g at the log-probabilities of the samples, h at the entropy, and
    v = sum p log p: of R rows; 0 where the mask forbids."""
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    kept = row < rows
    known = kept[None, :, None]
    x_at = row_starts(logits, row, in_rows, cols, UNIT)
    m_at = None if mask is None else row_starts(mask, row, in_rows, cols, UNIT)
    place = saved + row[None, :, None] * 3
    top, log = tl.load(place, known, 0).to(T), tl.load(place + 1, known, 0).to(T)
    value = tl.load(place + 2, known, 0).to(T)
    h = tl.load(grad + samples * rows + row, kept, 0).to(T)[None, :, None]
    total = tl.zeros((1, R, 1), T)
    for sample in range(samples):
        drawn = tl.load(category + sample * rows + row, kept, -1)
        total += tl.load(grad + sample * rows + row, kept & (drawn >= 0), 0).to(T)[None, :, None]
    for first in range(0, cols, 4 * Q):
        there = inside(kept, cols, first, Q, UNIT)
        x, allowed = elements(x_at, m_at, there, first, Q, T, UNIT)
        log_p = below(x, top) - log
        p = exp_of(log_p)
        dx = -times(p, total + times(h, log_p - value))
        for sample in range(samples):
            drawn = tl.load(category + sample * rows + row, kept, -1)[None, :, None]
            g = tl.load(grad + sample * rows + row, kept, 0).to(T)[None, :, None]
            dx += tl.where(first + columns(Q) == drawn, g, 0)
        dx = tl.where(allowed, dx, 0)
        tl.store(along(row_starts(out, row, rows, cols, UNIT), first, 1, Q, UNIT), dx.to(out.dtype.element_ty), there)
