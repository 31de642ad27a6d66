"""The kernels of the passes over rows: forward once for the largest logits and once for the sums, backward once.

With a = x - max x, log p = a - log sum exp a. A row whose largest logit is +inf has a = 0 there and -inf elsewhere; one
that has nothing has no p at all.
"""

# What is constant has capitals, and Triton reads `if` and `else` by its own rules:
# ruff: noqa: N806, N803
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

from softdraw.kernels.triton.tiles import INF, LOG2_E, along, columns, fold, highest, inside, over, starts

_BOUND = ["scale", "shift", "rows", "cols", "in_rows", "other_rows", "grad_rows"]


@triton.jit
def row_starts(pointer, row, rows, cols, UNIT: tl.constexpr):
    """Where rows begin in an operand that has ``rows`` of them."""
    return starts(pointer, row % rows, 1, 0, cols, True, UNIT)


@triton.jit
def elements(start, mask, there, first, Q: tl.constexpr, T: tl.constexpr, UNIT: tl.constexpr):
    """Elements of a block, -inf where forbidden and outside, and which are allowed."""
    x = tl.load(along(start, first, 1, Q, UNIT), there, -INF).to(T)
    allowed = there
    if mask is not None:
        allowed = there & (tl.load(along(mask, first, 1, Q, UNIT), there, 0) != 0)
        x = tl.where(allowed, x, -INF)
    return x, allowed


@triton.jit
def below(x, top):
    """x - top: 0 where x is the top, +inf too; all -inf in a row that has nothing."""
    return tl.where(top == -INF, x, tl.where(x == top, 0, x - top))


@triton.jit
def exp_of(a):
    return tl.exp2(a * LOG2_E)


@triton.jit
def log_of(tops, rest):
    """log sum exp a from the number of elements at the top and the sum of the others, which keeps its last places
    beside 1; +inf in a row that has nothing, so that its log p are -inf."""
    n = tl.where(tops == 0, 1, tops)
    r = rest / n
    u = 1 + r
    log1p = tl.where(u == 1, r, tl.log(u) * (r / tl.where(u == 1, 1, u - 1)))  # the quotient undoes the rounding of u
    return tl.where(tops + rest == 0, INF, tl.log(n) + log1p)


@triton.jit
def times(weight, x):
    """weight * x, 0 where the weight is: what is not there does not count."""
    return tl.where(weight == 0, 0, weight * x)


@triton.jit
def _least(T: tl.constexpr):
    """A quarter of the most negative number stands for log 0, where a slope is wanted."""
    return -0.25 * (3.4028234663852886e38 if tl.float32 == T else 1.7976931348623157e308)


@triton.jit(do_not_specialize=_BOUND[:-1])
def forward(
    out, saved, logits, mask, other, other_mask, category, keep, scales, shifts, scale, shift,
    rows, cols, in_rows, other_rows,
    OP: tl.constexpr, KEPT: tl.constexpr, R: tl.constexpr, Q: tl.constexpr, T: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """The number of R rows, and what ``backward`` needs: the maximum, log sum exp a, and those of OP."""
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    kept = row < rows
    if keep is not None:
        kept = kept & (tl.load(keep + row, kept, 0) != 0)
    KL: tl.constexpr = OP == "kl" or OP == "kl_with_slope"
    x_at = row_starts(logits, row, in_rows, cols, UNIT)
    m_at = None if mask is None else row_starts(mask, row, in_rows, cols, UNIT)
    t_at = None if other is None else row_starts(other, row, other_rows, cols, UNIT)
    n_at = None if other_mask is None else row_starts(other_mask, row, other_rows, cols, UNIT)
    top = tl.full((1, R, 1), -INF, T)
    y_top, drawn = top, tl.full((1, R, 1), -1, tl.int64)
    for first in range(0, cols, 4 * Q):
        there = inside(kept, cols, first, Q, UNIT)
        x, _ = elements(x_at, m_at, there, first, Q, T, UNIT)
        top = tl.maximum(top, highest(x))
        if KL:
            y, _ = elements(t_at, n_at, there, first, Q, T, UNIT)
            y_top = tl.maximum(y_top, highest(y))
    if OP == "index_nll":
        drawn = tl.load(category + row, kept, -1)[None, :, None]
    tops, rest, y_tops, y_rest = (
        tl.zeros((1, R, 1), T),
        tl.zeros((1, R, 1), T),
        tl.zeros((1, R, 1), T),
        tl.zeros((1, R, 1), T),
    )
    value, mass, far = tl.zeros((1, R, 1), T), tl.zeros((1, R, 1), T), tl.zeros((1, R, 1), T)
    impossible = tl.zeros((1, R, 1), tl.int32)
    for first in range(0, cols, 4 * Q):
        there = inside(kept, cols, first, Q, UNIT)
        x, _ = elements(x_at, m_at, there, first, Q, T, UNIT)
        a = below(x, top)
        e = exp_of(a)
        tops, rest = tops + fold(tl.where(a == 0, 1.0, 0.0)), rest + fold(tl.where(a == 0, 0, e))
        if OP == "entropy":
            value += fold(times(e, a))
        elif OP == "index_nll":
            value += fold(tl.where(first + columns(Q) == drawn, -a, 0))
        elif OP == "nll":
            t, _ = elements(t_at, None, there, first, Q, T, UNIT)
            t = tl.where(there, t, 0)
            value, mass = value + fold(times(t, -a)), mass + fold(t)
        else:
            y, _ = elements(t_at, n_at, there, first, Q, T, UNIT)
            b = below(y, y_top)
            y_tops, y_rest = y_tops + fold(tl.where(b == 0, 1.0, 0.0)), y_rest + fold(tl.where(b == 0, 0, exp_of(b)))
            both, alone = (a != -INF) & (b != -INF), (a != -INF) & (b == -INF)
            value += fold(tl.where(both, times(e, a - tl.where(both, b, 0)), 0))
            mass += fold(tl.where(alone, e, 0))
            far += fold(tl.where(alone, times(e, a), 0))
            if OP == "kl_with_slope":
                alone = alone & (e != 0)
            impossible = tl.maximum(impossible, tl.max(tl.max(alone.to(tl.int32), 0), 1)[None, :, None])
    log, total = log_of(tops, rest), tops + rest
    place = saved + row[None, :, None] * KEPT
    there = kept[None, :, None]
    tl.store(place, top, there)
    tl.store(place + 1, log, there)
    if KL:
        y_log, lost = log_of(y_tops, y_rest), mass * over(total)
        held = tl.where(total == 0, 0, 1 - lost)  # the mass of what both laws have
        value = value * over(total) - times(held, log - y_log)
        if OP == "kl_with_slope":
            value += far * over(total) - times(lost, log + _least(T))
        tl.store(place + 2, y_top, there)
        tl.store(place + 3, y_log, there)
        tl.store(place + 4, value, there)
        tl.store(place + 5, held, there)
        value = tl.where(impossible != 0, INF, value)
    else:
        if OP == "entropy":
            value = value * over(total) - tl.where(total == 0, 0, log)
            tl.store(place + 2, value, there)
            value = (value + (shift if shifts is None else tl.load(shifts))) * tl.where(total == 0, 0, 1)
        elif OP == "nll":
            tl.store(place + 2, mass, there)
            value = value + times(mass, log)
        else:
            value = value + log
        value = value * (scale if scales is None else tl.load(scales))
    value = tl.where(there, value, 0) + 0  # never -0
    tl.store(out + row[None, :, None], value, (row < rows)[None, :, None])


@triton.jit(do_not_specialize=["scale", *_BOUND[2:]])
def backward(
    out, other_out, saved, logits, mask, other, other_mask, category, keep, grad, scales, scale,
    rows, cols, in_rows, other_rows, grad_rows,
    OP: tl.constexpr, KEPT: tl.constexpr, R: tl.constexpr, Q: tl.constexpr, T: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """The gradients for x and, where it is wanted, for the second operand: 0 in rows that do not count, and where the
    mask forbids."""
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    real = row < rows
    kept = real
    if keep is not None:
        kept = kept & (tl.load(keep + row, kept, 0) != 0)
    x_at = row_starts(logits, row, in_rows, cols, UNIT)
    m_at = None if mask is None else row_starts(mask, row, in_rows, cols, UNIT)
    t_at = None if other is None else row_starts(other, row, other_rows, cols, UNIT)
    n_at = None if other_mask is None else row_starts(other_mask, row, other_rows, cols, UNIT)
    place, known = saved + row[None, :, None] * KEPT, kept[None, :, None]
    top, log = tl.load(place, known, 0), tl.load(place + 1, known, 0)
    g = tl.load(grad + row % grad_rows, kept, 0).to(T)[None, :, None] * (scale if scales is None else tl.load(scales))
    drawn = tl.full((1, R, 1), -1, tl.int64)
    if OP == "index_nll":
        drawn = tl.load(category + row, kept, -1)[None, :, None]
    else:
        value = tl.load(place + (2 if OP == "entropy" or OP == "nll" else 4), known, 0)
    for first in range(0, cols, 4 * Q):
        there = inside(kept, cols, first, Q, UNIT)
        x, allowed = elements(x_at, m_at, there, first, Q, T, UNIT)
        log_p = below(x, top) - log
        p = exp_of(log_p)
        if OP == "entropy":
            dx = times(p, log_p - value)
        elif OP == "index_nll":
            dx = tl.where(log == INF, 0, p - tl.where(first + columns(Q) == drawn, 1, 0))
        elif OP == "nll":
            t, _ = elements(t_at, None, there, first, Q, T, UNIT)
            dx = tl.where(log == INF, 0, p * value - t)
            dy = -tl.where((t == 0) & (log_p == -INF), 0, log_p)
            counts = there
        else:
            y, counts = elements(t_at, n_at, there, first, Q, T, UNIT)
            held = tl.load(place + 5, known, 0)
            log_q = below(y, tl.load(place + 2, known, 0)) - tl.load(place + 3, known, 0)
            both = (log_p != -INF) & (log_q != -INF)
            if OP == "kl_with_slope":
                dx = times(p, log_p - tl.where(log_q == -INF, _least(T), log_q) - value)
            else:  # what q alone forbids is constant, and only moves the others' mass
                dx = times(p, tl.where(both, log_p - tl.where(both, log_q, 0) - value + (1 - held), -value - held))
            dy = exp_of(log_q) * held - tl.where(both, p, 0)
        shown = inside(real, cols, first, Q, UNIT)
        dx = tl.where(allowed, dx * g, 0)
        tl.store(along(row_starts(out, row, rows, cols, UNIT), first, 1, Q, UNIT), dx.to(out.dtype.element_ty), shown)
        if other_out is not None:
            dy = tl.where(counts, dy * g, 0)
            dy_at = along(row_starts(other_out, row, rows, cols, UNIT), first, 1, Q, UNIT)
            tl.store(dy_at, dy.to(other_out.dtype.element_ty), shown)
