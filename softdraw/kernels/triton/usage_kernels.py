"""The kernels of the passes of usage: what is kept of a row, the sums over rows, and the gradient.

A law is made again wherever it is used, from the largest logit of its row and 1 / sum exp (x - largest).
"""

# What is constant has capitals, and Triton reads `if` and `else` by its own rules:
# ruff: noqa: N803
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

from softdraw.kernels.triton.pass_kernels import below, elements, exp_of, row_starts
from softdraw.kernels.triton.tiles import INF, along, columns, first_place, fold, highest, inside, over, starts


@triton.jit(do_not_specialize=["rows", "cols"])
def tops(
    saved, chosen, logits, mask, keep, rows, cols,
    R: tl.constexpr, Q: tl.constexpr, T: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """The largest logit of R rows, 1 / sum exp (x - largest) and, where asked, the first category that has it."""
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    kept = row < rows
    if keep is not None:
        kept = kept & (tl.load(keep + row, kept, 0) != 0)
    x_at, m_at = (
        row_starts(logits, row, rows, cols, UNIT),
        None if mask is None else row_starts(mask, row, rows, cols, UNIT),
    )
    top, total = tl.full((1, R, 1), -INF, T), tl.zeros((1, R, 1), T)
    for first in range(0, cols, 4 * Q):
        x, _ = elements(x_at, m_at, inside(kept, cols, first, Q, UNIT), first, Q, T, UNIT)
        top = tl.maximum(top, highest(x))
    column = tl.zeros((1, R, 1), tl.int32) + cols
    for first in range(0, cols, 4 * Q):
        x, _ = elements(x_at, m_at, inside(kept, cols, first, Q, UNIT), first, Q, T, UNIT)
        total += fold(exp_of(below(x, top)))
        place = first_place(x, top, Q)
        column = tl.minimum(column, tl.where(place < 4 * Q, first + place, cols))
    known = (row < rows)[None, :, None]
    tl.store(saved + 2 * row[None, :, None], top, known)
    tl.store(saved + 2 * row[None, :, None] + 1, over(total), known)
    if chosen is not None:
        tl.store(chosen + row[None, :, None], tl.where(top == -INF, -1, column), known)


@triton.jit
def _laws(saved, row, kept, x, T: tl.constexpr):
    """The probabilities of rows."""
    top = tl.load(saved + 2 * row, kept, 0)[None, :, None]
    return exp_of(below(x, top)) * tl.load(saved + 2 * row + 1, kept, 0)[None, :, None]


@triton.jit(do_not_specialize=["rows", "cols", "group_rows", "chunks", "pieces"])
def sums(
    laws, picks, saved, chosen, weight, logits, mask, keep, rows, cols, group_rows, chunks, pieces,
    STEPS: tl.constexpr, R: tl.constexpr, Q: tl.constexpr, T: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """The sums of w p and, where asked, of w for what each row chose, over STEPS times R rows of one group, in one
    piece of the columns."""
    part = tl.program_id(0) // pieces
    first = (tl.program_id(0) % pieces) * 4 * Q
    start = (part % chunks) * STEPS * R
    law, picked = tl.zeros((4, 1, Q), T), tl.zeros((4, 1, Q), T)
    for step in range(STEPS):
        place = start + step * R + tl.arange(0, R)
        row = (part // chunks).to(tl.int64) * group_rows + place
        kept = place < group_rows
        if keep is not None:
            kept = kept & (tl.load(keep + row, kept, 0) != 0)
        there = inside(kept, cols, first, Q, UNIT)
        x_at, m_at = (
            row_starts(logits, row, rows, cols, UNIT),
            None if mask is None else row_starts(mask, row, rows, cols, UNIT),
        )
        x, _ = elements(x_at, m_at, there, first, Q, T, UNIT)
        w = tl.where(kept, 1.0, 0.0).to(T) if weight is None else tl.load(weight + row, kept, 0)
        law += tl.sum(tl.where(there, w[None, :, None] * _laws(saved, row, kept, x, T), 0), 1)[:, None, :]
        if chosen is not None:
            mine = tl.load(chosen + row, kept, -1)[None, :, None] == first + columns(Q)
            picked += tl.sum(tl.where(there & mine, w[None, :, None], 0), 1)[:, None, :]
    to = part.to(tl.int64) * cols + first + columns(Q)
    tl.store(laws + to, law, first + columns(Q) < cols)
    if chosen is not None:
        tl.store(picks + to, picked, first + columns(Q) < cols)


@triton.jit(do_not_specialize=["rows", "cols", "group_rows", "grad_rows"])
def backward(
    out, saved, slopes, grad, weight, logits, mask, keep, rows, cols, group_rows, grad_rows,
    R: tl.constexpr, Q: tl.constexpr, T: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """g w p (s - sum p s), with the slopes s of each row's group; 0 in rows that do not count."""
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    kept = row < rows
    if keep is not None:
        kept = kept & (tl.load(keep + row, kept, 0) != 0)
    x_at, m_at = (
        row_starts(logits, row, rows, cols, UNIT),
        None if mask is None else row_starts(mask, row, rows, cols, UNIT),
    )
    group = row // group_rows
    s_at, mean = starts(slopes, group, 1, 0, cols, True, 1), tl.zeros((1, R, 1), T)
    for first in range(0, cols, 4 * Q):
        there = inside(kept, cols, first, Q, UNIT)
        x, _ = elements(x_at, m_at, there, first, Q, T, UNIT)
        mean += fold(_laws(saved, row, kept, x, T) * tl.load(along(s_at, first, 1, Q, 1), there, 0))
    g = tl.load(grad + group % grad_rows, kept, 0)
    g = (g if weight is None else g * tl.load(weight + row, kept, 0))[None, :, None]
    for first in range(0, cols, 4 * Q):
        there = inside(kept, cols, first, Q, UNIT)
        x, allowed = elements(x_at, m_at, there, first, Q, T, UNIT)
        dx = g * _laws(saved, row, kept, x, T) * (tl.load(along(s_at, first, 1, Q, 1), there, 0) - mean)
        to = along(row_starts(out, row, rows, cols, UNIT), first, 1, Q, UNIT)
        tl.store(to, tl.where(allowed, dx, 0).to(out.dtype.element_ty), inside(row < rows, cols, first, Q, UNIT))
