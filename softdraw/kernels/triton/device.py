"""What runs on the GPU: a tile of rows x columns is scored, reduced and written by one program.

A tile has the shape (4, R, Q): R rows, and four contiguous columns a thread, which is what one Philox call yields and
what a thread loads at once; so neither the noise nor the logits change their layout. A program holds whole rows
(``tops`` is None) or one of the ``splits`` of a row that is wider, whose maximum and sum then come from ``combine``.

Row operands (seed, id, tau, stream) are one value, or one for each row where ``EACH_...`` says so. Offsets are 64-bit.
tau, widths and strides are run-time arguments that specialise nothing.
"""

# What is constant has capitals, and Triton reads `if` and `else` by its own rules:
# ruff: noqa: N803, RET505, SIM108
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

_INF = tl.constexpr(float("inf"))
_LOG2_E = tl.constexpr(1.4426950408889634)
_LN_2 = tl.constexpr(0.6931471805599453)
_NOWHERE = tl.constexpr(2**62)  # larger than any column
_U_MAX = tl.constexpr(1 - 2**-24)
_BOUND = ["rows", "cols", "inner", "splits", "tau"]
_STRIDES = [f"{x}_{step}" for x in ("out", "in", "grad", "mask") for step in ("outer", "inner", "col")]


@triton.jit
def _minus_log1p(u):
    """-log(1 - u), to the last places of u however small it is."""
    v = 1 - u
    if u.dtype == tl.float64:
        # Kahan: the rounding of 1 - u is undone by the quotient, whose denominator is exact.
        return tl.where(v == 1, u, -tl.log(v) * (u / tl.where(v == 1, 1, 1 - v)))
    else:
        # u (1 + u/2 + u^2/3 + ...): below 1/4 the term u^12 is under 2^-24. The hardware's log2 is absolutely, not
        # relatively precise near 1.
        series = 1.0 / 12 + u * (1.0 / 13)
        for k in tl.static_range(11, 0, -1):
            series = series * u + 1.0 / k
        return tl.where(u < 0.25, series * u, -_LN_2 * tl.log2(v))


@triton.jit
def _gumbel(seed, row, stream, first, Q: tl.constexpr, T: tl.constexpr):
    """Standard Gumbel values, (4, R, Q), in columns from ``first``, a multiple of 4; rows are (1, R, 1)."""
    low, high = row.to(tl.uint32), (row >> 32).to(tl.uint32)
    stream = stream.to(tl.uint32)
    counter = (first >> 2).to(tl.uint32) + tl.arange(0, Q).to(tl.uint32)[None, None, :]
    w0, w1, w2, w3 = tl.philox(seed, counter, low, high, stream)
    # Which word an element takes is known when its thread is compiled: these selections are names of registers, where
    # a join and a reshape would go through shared memory.
    k = tl.arange(0, 4)[:, None, None]
    x = tl.where(k < 2, tl.where(k == 0, w0, w1), tl.where(k == 2, w2, w3))
    u = (x.to(T) + 0.5) * 2**-32
    if tl.min(tl.min(tl.min(x, 0), 1), 0) < 256:  # once in 2^24 words: their low bits are a second word
        column = counter * 4 + k.to(tl.uint32)
        tail, _, _, _ = tl.philox(seed, column, low, high, stream ^ tl.full((1, 1, 1), 0x80000000, tl.uint32))
        u = tl.where(x < 256, (x.to(T) + (tail.to(T) + 0.5) * 2**-32) * 2**-32, u)
    return -_LN_2 * tl.log2(_minus_log1p(tl.minimum(u, _U_MAX)))


@triton.jit
def _of(pointer, row, there, EACH: tl.constexpr):
    """The value of each row, shaped as ``row``; or the one value, a scalar."""
    if EACH:
        return tl.load(pointer + row, mask=there, other=1)
    else:
        return tl.load(pointer)


@triton.jit
def _columns(Q: tl.constexpr):
    """A tile's columns, counted from its first, (4, 1, Q)."""
    return 4 * tl.arange(0, Q)[None, None, :] + tl.arange(0, 4)[:, None, None]


@triton.jit
def _left(cols, first, Q: tl.constexpr, ALIGNED: tl.constexpr):
    """How many of a tile's columns there are."""
    left = tl.minimum(cols - first, 4 * Q).to(tl.int32)
    if ALIGNED:
        return tl.multiple_of(left, 4)
    else:
        return left


@triton.jit
def _at(
    pointer, row, first, inner, outer_step, inner_step, col_step,
    Q: tl.constexpr, FLAT: tl.constexpr, UNIT: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """Where the elements of a tile lie, (4, R, Q), for rows (R,) numbered over two batch dimensions."""
    if FLAT:
        start = row * inner_step
    else:
        start = (row // inner) * outer_step + (row % inner) * inner_step
    start += first * col_step
    if ALIGNED:
        start = tl.multiple_of(start, 4)
    starts = pointer + start[None, :, None]
    if UNIT:
        return starts + _columns(Q)
    else:
        return starts + _columns(Q).to(tl.int64) * col_step


@triton.jit
def _fold(x):
    """The sum over the columns of (4, R, Q), as (1, R, 1)."""
    return tl.sum(tl.sum(x, 0), 1)[None, :, None]


@triton.jit(do_not_specialize=[*_BOUND, *_STRIDES, "draws"])
def draw(
    out, logits, grad, mask, seeds, ids, taus, tops, totals, ats,
    tau, draws, rows, cols, inner, splits,
    out_outer, out_inner, out_col, in_outer, in_inner, in_col,
    grad_outer, grad_inner, grad_col, mask_outer, mask_inner, mask_col,
    OP: tl.constexpr, R: tl.constexpr, Q: tl.constexpr, T: tl.constexpr, FLAT: tl.constexpr, UNIT: tl.constexpr,
    ALIGNED: tl.constexpr, EACH_SEED: tl.constexpr, EACH_TAU: tl.constexpr, ONCE: tl.constexpr,
):  # fmt: skip
    """soft, hard, index, hard_backward; or "part", the maximum, sum and argmax of one split of a row."""
    program = tl.program_id(0).to(tl.int64)
    split = program % splits
    number = (program // splits) * R + tl.arange(0, R)  # of the draw: sample * rows + row
    first = split * (4 * Q)
    local = _columns(Q)
    left = _left(cols, first, Q, ALIGNED)
    row = number if ONCE else number % rows
    there = (number < draws)[None, :, None] & (local < left)

    tau = tau if taus is None else _of(taus, row, number < draws, EACH_TAU)
    if taus is not None and EACH_TAU:
        tau = tau[None, :, None]
    scale = _LOG2_E / tau

    if OP != "hard" or tops is None:
        # Noise first: logits would hold registers while it is made, and wide rows would spill.
        if seeds is not None:
            deep, kept = row[None, :, None], (number < draws)[None, :, None]
            seed = _of(seeds, deep, kept, EACH_SEED)
            id = deep if ids is None else tl.load(ids + deep, mask=kept, other=0)
            stream = tl.zeros((1, 1, 1), tl.int64) if ONCE else number[None, :, None] // rows
            g = _gumbel(seed, id, stream, first, Q, T)
        at = _at(logits, row, first, inner, in_outer, in_inner, in_col, Q, FLAT, UNIT, ALIGNED)
        s = tl.load(at, mask=there, other=-_INF).to(T)
        if seeds is not None:
            s += g
        if mask is not None:
            at = _at(mask, row, first, inner, mask_outer, mask_inner, mask_col, Q, FLAT, False, False)
            s = tl.where(tl.load(at, mask=there, other=0) != 0, s, -_INF)
        s = tl.where(s < _INF, s, _INF)  # NaN too: a maximum of +inf then says that the row has no draw

    if tops is None or OP == "part":
        top = tl.max(tl.max(s, 0), 1)[None, :, None]
    else:
        top = tl.load(tops + number, mask=number < draws, other=0)[None, :, None]
    base = tl.where(top == -_INF, 0, top)
    finite = tl.abs(top) < _INF
    if OP == "hard" and tops is not None:
        best = tl.load(ats + number, mask=number < draws, other=0)[None, :, None]
    elif OP == "hard" or OP == "index" or OP == "part":
        best = tl.min(tl.min(tl.where(s == top, local, 4 * Q), 0), 1)[None, :, None]
        best = tl.where(finite, first + best, -1)
    if OP == "soft" or OP == "hard_backward" or OP == "part":
        e = tl.exp2((s - base) * scale)
        if tops is None or OP == "part":
            total = _fold(e)
        else:
            total = tl.load(totals + number, mask=number < draws, other=1)[None, :, None]

    if OP == "index" or OP == "part":
        slot = number[None, :, None] * splits + split
        kept = (number < draws)[None, :, None]
        tl.store(ats + slot, best.to(tl.int64), mask=kept)
        if OP == "part":
            tl.store(tops + slot, top, mask=kept)
            tl.store(totals + slot, total, mask=kept)
    else:
        if OP == "hard":
            y = tl.where(top == _INF, float("nan"), tl.where(first + local == best, 1.0, 0.0))
        else:
            y = (e * (1 / tl.where(total == 0, 1, total))).to(out.dtype.element_ty)
        if OP == "hard_backward":
            at = _at(grad, row, first, inner, grad_outer, grad_inner, grad_col, Q, FLAT, UNIT, ALIGNED)
            y = y.to(T)
            g = tl.where(y == 0, 0, tl.load(at, mask=there, other=0).to(T))
            y = y * (g - _fold(y * g)) / tau
        at = _at(out, row, first, inner, out_outer, out_inner, out_col, Q, FLAT, UNIT, ALIGNED)
        tl.store(at, y.to(out.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=["tau", "rows", "splits"])
def combine(
    tops, totals, ats, taus, row_tops, row_totals, row_ats, tau, rows, splits,
    BLOCK: tl.constexpr, EACH_TAU: tl.constexpr,
):  # fmt: skip
    """Maximum, sum and argmax of a row from those of its splits, carried along online; one program a draw."""
    number = tl.program_id(0).to(tl.int64)
    if taus is not None:
        tau = _of(taus, number % rows, True, EACH_TAU)
    scale = _LOG2_E / tau
    top = tl.full((), -_INF, tops.dtype.element_ty)
    total = tl.zeros((), tops.dtype.element_ty)
    best = tl.full((), _NOWHERE, tl.int64)
    for first in range(0, splits, BLOCK):
        at = first + tl.arange(0, BLOCK)
        there = at < splits
        slot = number * splits + at
        t = tl.load(tops + slot, mask=there, other=-_INF)
        n = tl.load(totals + slot, mask=there, other=0)
        a = tl.load(ats + slot, mask=there, other=_NOWHERE)
        new = tl.maximum(top, tl.max(t, 0))
        base = tl.where(new == -_INF, 0, new)
        total = total * tl.exp2((top - base) * scale) + tl.sum(n * tl.exp2((t - base) * scale), 0)
        here = tl.min(tl.where(t == new, a, _NOWHERE), 0)
        best = tl.where(new > top, here, tl.minimum(best, here))
        top = new
    tl.store(row_tops + number, top)
    tl.store(row_totals + number, total)
    tl.store(row_ats + number, tl.where(tl.abs(top) < _INF, best, -1))


@triton.jit(do_not_specialize=[*_BOUND, *_STRIDES[:9]])
def jacobian(
    out, y, grad, taus, dots, tau, rows, cols, inner, splits,
    out_outer, out_inner, out_col, in_outer, in_inner, in_col, grad_outer, grad_inner, grad_col,
    OP: tl.constexpr, R: tl.constexpr, Q: tl.constexpr, T: tl.constexpr, FLAT: tl.constexpr, UNIT: tl.constexpr,
    ALIGNED: tl.constexpr, EACH_TAU: tl.constexpr,
):  # fmt: skip
    """dx = y (g - <g, y>) / tau; or "part", the part of <g, y> in one split. Without mass no gradient passes."""
    program = tl.program_id(0).to(tl.int64)
    split = program % splits
    row = (program // splits) * R + tl.arange(0, R)
    first = split * (4 * Q)
    kept = (row < rows)[None, :, None]
    there = kept & (_columns(Q) < _left(cols, first, Q, ALIGNED))
    at = _at(y, row, first, inner, in_outer, in_inner, in_col, Q, FLAT, UNIT, ALIGNED)
    p = tl.load(at, mask=there, other=0).to(T)
    at = _at(grad, row, first, inner, grad_outer, grad_inner, grad_col, Q, FLAT, UNIT, ALIGNED)
    g = tl.where(p == 0, 0, tl.load(at, mask=there, other=0).to(T))
    if OP == "part":
        tl.store(dots + row[None, :, None] * splits + split, _fold(p * g), mask=kept)
    else:
        if taus is not None:
            tau = _of(taus, row[None, :, None], kept, EACH_TAU)
        dot = _fold(p * g) if dots is None else tl.load(dots + row[None, :, None], mask=kept, other=0)
        at = _at(out, row, first, inner, out_outer, out_inner, out_col, Q, FLAT, UNIT, ALIGNED)
        tl.store(at, (p * (g - dot) / tau).to(out.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=["rows", "cols", "col_start", "splits"])
def noise(
    out, seeds, ids, streams, rows, cols, col_start, splits,
    R: tl.constexpr, Q: tl.constexpr, T: tl.constexpr, EACH_SEED: tl.constexpr, EACH_STREAM: tl.constexpr,
):  # fmt: skip
    """Rows of ``cols`` Gumbel values, contiguous, from column ``col_start``; tiles start at a multiple of 4."""
    program = tl.program_id(0).to(tl.int64)
    row = ((program // splits) * R + tl.arange(0, R))[None, :, None]
    kept = row < rows
    first = (col_start // 4) * 4 + (program % splits) * (4 * Q)
    seed = _of(seeds, row, kept, EACH_SEED)
    stream = _of(streams, row, kept, EACH_STREAM)
    g = _gumbel(seed, tl.load(ids + row, mask=kept, other=0), stream, first, Q, T)
    column = first - col_start + _columns(Q)
    there = kept & (column >= 0) & (column < cols)
    tl.store(out + row * cols + column, g, mask=there)
