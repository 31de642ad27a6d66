"""The kernels of the passes over bits. csrc/bit.h has the formulas.

All of them come from e = exp(-|x|) and log(1 + e), in which nothing overflows and small values keep their relative
precision. At infinite x every function is its limit; 0 * inf is 0: what has no weight is not there.
"""

# What is constant has capitals, and Triton reads `if` and `else` by its own rules:
# ruff: noqa: N803
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

from softdraw.kernels.triton.tiles import INF, LOG2_E, along, cut, fold, inside, starts

_LN_2_HIGH, _LN_2_LOW = tl.constexpr(0.693359375), tl.constexpr(-2.1219444005469058277e-4)
_NOTHING = tl.constexpr(-800.0)  # its exponential is 0 in every dtype


@triton.jit
def _decay(x):
    """exp(-|x|), to the last places however small it is: -|x| = k log 2 + r, and r alone is rounded to powers of 2."""
    a = tl.maximum(tl.where(x < 0, x, -x), _NOTHING)
    k = tl.floor(a * LOG2_E + 0.5)
    r = (a - k * _LN_2_HIGH) - k * _LN_2_LOW  # the first product is exact: nine bits and those of a small integer
    return tl.where(x == x, tl.exp2(r * LOG2_E) * tl.exp2(k), x)


@triton.jit
def _log1p(e):
    u = 1 + e
    return tl.where(u == 1, e, tl.log(u) * (e / tl.where(u == 1, 1, u - 1)))  # the quotient undoes the rounding of u


@triton.jit
def _bit(x):
    """sigmoid(x), sigmoid(-x), and log(1 + e)."""
    e = _decay(x)
    large = 1 / (1 + e)
    small = e * large
    return tl.where(x < 0, small, large), tl.where(x < 0, large, small), _log1p(e)


@triton.jit
def _infinite(x):
    return (x == INF) | (x == -INF)


@triton.jit
def _times(weight, x):
    """weight * x, where 0 * inf is 0."""
    return weight * tl.where((weight == 0) & _infinite(x), 0, x)


@triton.jit
def _cost_of_one(x, rest):
    return tl.where(x > 0, 0, -x) + rest


@triton.jit
def _cost_of_zero(x, rest):
    return tl.where(x < 0, 0, x) + rest


@triton.jit
def _divergence(x, z):
    """sum p (log p - log q): a value that p forbids counts nothing, one that q alone forbids makes it inf."""
    on, off, rest = _bit(x)
    _, _, other_rest = _bit(z)
    one = tl.where(z == -INF, INF, on * (_cost_of_one(z, other_rest) - _cost_of_one(x, rest)))
    zero = tl.where(z == INF, INF, off * (_cost_of_zero(z, other_rest) - _cost_of_zero(x, rest)))
    return tl.where(x == -INF, 0, one) + tl.where(x == INF, 0, zero)


@triton.jit
def _divergence_slopes(x, z):
    """p (1 - p) (x - z), and sigmoid(z) - sigmoid(x) as a difference that keeps small values. Where q forbids a value,
    the former is that of the other value's term."""
    on, off, rest = _bit(x)
    q, not_q, _ = _bit(z)
    spread = on * off
    slope = _times(spread, x - z)
    slope = tl.where(z == INF, spread * (1 - _cost_of_one(x, rest)), slope)
    slope = tl.where(z == -INF, -spread * (1 - _cost_of_zero(x, rest)), slope)
    return tl.where(_infinite(x), 0, slope), tl.where(_infinite(z), 0, off * q - on * not_q)


@triton.jit
def _read(pointer, at, there, T: tl.constexpr):
    """Elements of an operand, 0 where it is left out."""
    return tl.load(pointer + at, there, 0).to(T)


@triton.jit
def _kept(mask, at, there):
    return there if mask is None else there & (tl.load(mask + at, there, 0) != 0)


@triton.jit
def _weight(weight, at, there, T: tl.constexpr):
    return tl.where(there, 1.0, 0.0).to(T) if weight is None else _read(weight, at, there, T)


@triton.jit(do_not_specialize=["number", "bits"])
def value(
    out, sums, weights, logits, other, weight, positive, mask, numbers, number, bits,
    OP: tl.constexpr, LAW: tl.constexpr, N: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """The number of each of N bits; or, where there is no ``out``, the sum of these numbers and that of the weights."""
    at = tl.program_id(0).to(tl.int64) * N + tl.arange(0, N)
    there = at < bits
    kept = _kept(mask, at, there)
    x = _read(logits, at, kept, T)
    if OP == "kl":
        made = _divergence(x, _read(other, at, kept, T))
    elif OP == "nll":
        _, _, rest = _bit(x)
        y = _read(other, at, kept, T)
        p = (number if numbers is None else tl.load(numbers)) if positive is None else _read(positive, at, there, T)
        made = _times(p * y, _cost_of_one(x, rest)) + _times(1 - y, _cost_of_zero(x, rest))
        w = _weight(weight, at, kept, T)
        made = _times(w, made)
        if LAW:
            made = 0 - made
        if out is None:
            tl.store(sums + tl.program_id(0), tl.sum(tl.where(kept, made, 0), 0))
            tl.store(weights + tl.program_id(0), tl.sum(w, 0))
    else:
        on, off, rest = _bit(x)
        made = rest + _times(tl.minimum(on, off), tl.where(x < 0, -x, x)) if OP == "entropy" else on * off
    if out is not None:
        tl.store(out + at, made.to(out.dtype.element_ty), there)


@triton.jit(do_not_specialize=["number", "bits"])
def slope(
    out, other_out, grad, logits, other, weight, positive, mask, numbers, number, bits,
    OP: tl.constexpr, LAW: tl.constexpr, ONE_GRAD: tl.constexpr, N: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """The gradient for N logits and, where it is wanted, for the second ones; 0 for what the mask leaves out."""
    at = tl.program_id(0).to(tl.int64) * N + tl.arange(0, N)
    there = at < bits
    kept = _kept(mask, at, there)
    x = _read(logits, at, kept, T)
    g = tl.load(grad).to(T) if ONE_GRAD else _read(grad, at, there, T)
    if OP == "kl":
        dx, dz = _divergence_slopes(x, _read(other, at, kept, T))
        if other_out is not None:
            tl.store(other_out + at, g * dz, there)
    else:
        on, off, _ = _bit(x)
        if OP == "nll":
            y = _read(other, at, kept, T)
            p = (number if numbers is None else tl.load(numbers)) if positive is None else _read(positive, at, there, T)
            dx = (1 - y) * on - p * y * off
            if LAW:
                dx = tl.where(_infinite(x), 0, -dx)
            g *= _weight(weight, at, kept, T)
        elif OP == "entropy":
            dx = _times(on * off, -x)
        else:
            dx = on * off * (off - on)
    tl.store(out + at, tl.where(kept, g * dx, 0).to(out.dtype.element_ty), there)


@triton.jit
def _place(logits, rows, cols, splits, R: tl.constexpr, Q: tl.constexpr, UNIT: tl.constexpr):
    """The rows of this program, its split of them, and where its elements are."""
    tile, split = cut(splits)
    row = tile.to(tl.int64) * R + tl.arange(0, R)
    first = split * 4 * Q
    return (
        row,
        split,
        along(starts(0, row, 1, 0, cols, True, UNIT), first, 1, Q, UNIT),
        inside(row < rows, cols, first, Q, UNIT),
    )


@triton.jit(do_not_specialize=["rows", "cols", "splits"])
def share(
    sums, weights, logits, weight, mask, rows, cols, splits,
    R: tl.constexpr, Q: tl.constexpr, T: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """The sums of w sigmoid(x) and of w over R rows, or over a split of one."""
    row, split, at, there = _place(logits, rows, cols, splits, R, Q, UNIT)
    kept = _kept(mask, at, there)
    on, _, _ = _bit(_read(logits, at, kept, T))
    w = _weight(weight, at, kept, T)
    place = ((row if splits is None else row * splits) + split)[None, :, None]
    known = (row < rows)[None, :, None]
    tl.store(sums + place, fold(w * on), known)
    tl.store(weights + place, fold(w), known)


@triton.jit(do_not_specialize=["rows", "cols", "splits"])
def share_slope(
    out, factor, logits, weight, mask, rows, cols, splits,
    R: tl.constexpr, Q: tl.constexpr, T: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """The gradient for the logits: f w sigmoid(x) sigmoid(-x), with a factor f of each row."""
    row, _, at, there = _place(logits, rows, cols, splits, R, Q, UNIT)
    kept = _kept(mask, at, there)
    on, off, _ = _bit(_read(logits, at, kept, T))
    f = tl.load(factor + row, row < rows, 0)[None, :, None]
    dx = f * _weight(weight, at, kept, T) * (on * off)
    tl.store(out + at, tl.where(kept, dx, 0).to(out.dtype.element_ty), there)
