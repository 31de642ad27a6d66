"""Tiles: R rows by 4 Q columns as (4, R, Q), four contiguous columns a thread, which a thread loads at once.

Values of a row have the shape (1, R, 1). Offsets are 64-bit. UNIT says how many columns surely lie together in memory:
4 where rows are whole fours that start at multiples of 4, 1 where columns follow one another, 0 where they do not.
"""

# What is constant has capitals, and Triton reads `if` and `else` by its own rules:
# ruff: noqa: N803, RET505, SIM108
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

INF = tl.constexpr(float("inf"))
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def cut(splits):
    """The tile of rows of this program, and its split; rows that are not split divide nothing."""
    program = tl.program_id(0)
    if splits is None:
        return program, tl.full((), 0, tl.int32)
    else:
        return program // splits, program % splits


@triton.jit
def columns(Q: tl.constexpr):
    """A tile's columns, counted from its first, (4, 1, Q)."""
    return 4 * tl.arange(0, Q)[None, None, :] + tl.arange(0, 4)[:, None, None]


@triton.jit
def inside(kept, cols, first, Q: tl.constexpr, UNIT: tl.constexpr):
    """Which elements of a tile from column ``first`` there are, (4, R, Q), for the rows that are ``kept``, (R,)."""
    left = tl.minimum(cols - first, 4 * Q).to(tl.int32)
    if UNIT == 4:
        left = (left >> 2) * 4  # the same, and Triton sees a multiple of 4
    return kept[None, :, None] & (columns(Q) < left)


@triton.jit
def at(
    pointer, row, first, inner, outer_step, inner_step, col_step,
    Q: tl.constexpr, FLAT: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """Where the elements of a tile lie, (4, R, Q), for rows (R,) numbered over two batch dimensions."""
    if UNIT == 4:  # whole fours, which Triton must see: a hint is lost when the sum it is attached to is simplified
        outer_step, inner_step = outer_step >> 2, inner_step >> 2
    if FLAT:
        start = row * inner_step
    else:
        start = (row // inner) * outer_step + (row % inner) * inner_step
    if UNIT == 4:
        start *= 4
    if UNIT > 0:
        return pointer + (start + first)[None, :, None] + columns(Q)
    else:
        return pointer + start[None, :, None] + (first + columns(Q).to(tl.int64)) * col_step


@triton.jit
def starts(pointer, row, inner, outer_step, inner_step, FLAT: tl.constexpr, UNIT: tl.constexpr):
    """Where rows (R,) begin, for what takes a row in several tiles (``along``)."""
    if FLAT:
        return pointer + (row * (inner_step >> 2) * 4 if UNIT == 4 else row * inner_step)
    elif UNIT == 4:
        return pointer + ((row // inner) * (outer_step >> 2) + (row % inner) * (inner_step >> 2)) * 4
    else:
        return pointer + (row // inner) * outer_step + (row % inner) * inner_step


@triton.jit
def along(start, first, col_step, Q: tl.constexpr, UNIT: tl.constexpr):
    """Where the elements of a tile from column ``first`` lie, (4, R, Q), of rows that begin at ``start``."""
    if UNIT > 0:
        return start[None, :, None] + (first + columns(Q))
    else:
        return start[None, :, None] + (first + columns(Q).to(tl.int64)) * col_step


@triton.jit
def row_value(pointer, row, kept, EACH: tl.constexpr):
    """The value of each row (R,), as (1, R, 1); or the one value, a scalar."""
    if EACH:
        return tl.load(pointer + row, mask=kept, other=1)[None, :, None]
    else:
        return tl.load(pointer)


@triton.jit
def temperature(taus, tau, row, kept, EACH: tl.constexpr):
    """tau of each row: read where it is in memory, else the number."""
    if taus is None:
        return tau
    else:
        return row_value(taus, row, kept, EACH)


@triton.jit
def fold(x):
    """The sum over the columns, (1, R, 1)."""
    return tl.sum(tl.sum(x, 0), 1)[None, :, None]


@triton.jit
def highest(x):
    """The maximum over the columns, (1, R, 1); NaN is passed over."""
    return tl.max(tl.max(x, 0), 1)[None, :, None]


@triton.jit
def first_place(x, top, Q: tl.constexpr):
    """The smallest column where x is ``top``, (1, R, 1)."""
    return tl.min(tl.min(tl.where(x == top, columns(Q), 4 * Q), 0), 1)[None, :, None]


@triton.jit
def relative(s, top, tau):
    """exp((s - top) / tau), at most 1; 0 where the row has nothing."""
    return tl.exp2((s - tl.where(top == -INF, 0, top)) * (LOG2_E / tau))


@triton.jit
def over(total):
    """1 / total, and 1 for a row of no mass."""
    return 1 / tl.where(total == 0, 1, total)
