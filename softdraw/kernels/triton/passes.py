"""Passes of laws and losses over rows of logits in Triton: a number a row, and its gradient. ``pass_reference`` has the
formulas, csrc/pass_*.h the same passes on the CPU.

A program takes its rows in blocks: forward once for the largest logits and once for the sums, backward once. Nothing is
refused and nothing is waited for: at infinite logits each pass gives the limit that its formula has. What a loss checks
of its target, it asserts itself on a GPU (``operators/passes.py``).

With a = x - max x, log p = a - log sum exp a. A row whose largest logit is +inf has a = 0 there and -inf elsewhere; one
that has nothing has no p at all.
"""

# What is constant has capitals, and Triton reads `if` and `else` by its own rules:
# ruff: noqa: N803
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from softdraw.arguments import compute_dtype
from softdraw.kernels.pass_cpu import Gradients, Made, Wanted
from softdraw.kernels.pass_reference import Rows
from softdraw.kernels.triton import launching
from softdraw.kernels.triton.layout import rule_tile
from softdraw.kernels.triton.tiles import INF, LOG2_E, along, columns, fold, highest, inside, over, starts

_BOUND = ["scale", "shift", "rows", "cols", "in_rows", "other_rows", "grad_rows"]


def entropy(rows: Rows, scale: float, shift: float) -> Made:
    """scale sum p (log p + shift), batch."""
    return _forward("entropy", rows, 3, scale, shift)


def entropy_backward(
    rows: Rows, grad: Tensor, saved: Tensor, factor: float, wanted: Wanted, scale: float, shift: float
) -> Gradients:
    """The gradient for x: factor scale g p (log p - sum p log p)."""
    return _backward("entropy", rows, grad, saved, factor * scale, wanted)


def index_nll(rows: Rows) -> Made:
    """-log p of each row's category, batch."""
    return _forward("index_nll", rows, 2)


def index_nll_backward(rows: Rows, grad: Tensor, saved: Tensor, factor: float, wanted: Wanted) -> Gradients:
    """The gradient for x: factor g (p - one-hot)."""
    return _backward("index_nll", rows, grad, saved, factor, wanted)


def nll(rows: Rows, scale: float, *_: float) -> Made:
    """-scale sum t log p, batch."""
    return _forward("nll", rows, 3, scale)


def nll_backward(
    rows: Rows, grad: Tensor, saved: Tensor, factor: float, wanted: Wanted, scale: float, *_: float
) -> Gradients:
    """The gradients for x, factor scale g (p sum t - t), and for t, -factor scale g log p."""
    return _backward("nll", rows, grad, saved, factor * scale, wanted)


def kl(rows: Rows) -> Made:
    """sum p (log p - log q), batch."""
    return _forward("kl", rows, 6)


def kl_backward(rows: Rows, grad: Tensor, saved: Tensor, factor: float, wanted: Wanted) -> Gradients:
    """The gradients for x and for y."""
    return _backward("kl", rows, grad, saved, factor, wanted)


def kl_with_slope(rows: Rows) -> Made:
    """The same with a huge gradient, and a finite one, where it is infinite."""
    return _forward("kl_with_slope", rows, 6)


def kl_with_slope_backward(rows: Rows, grad: Tensor, saved: Tensor, factor: float, wanted: Wanted) -> Gradients:
    """The gradients for x and for y."""
    return _backward("kl_with_slope", rows, grad, saved, factor, wanted)


def _forward(op: str, rows: Rows, kept: int, scale: float = 1.0, shift: float = 0.0) -> Made:
    named, shape = _operands(op, rows)
    dtype = compute_dtype(rows.x.dtype)
    out = rows.x.new_empty(shape[:-1], dtype=dtype)
    saved = rows.x.new_empty((*shape[:-1], kept), dtype=dtype)
    named |= launching.number("scale", scale, rows.x) | launching.number("shift", shift, rows.x)
    _launch(forward, named | {"out": out, "saved": saved, "KEPT": kept})
    return out, saved


def _backward(op: str, rows: Rows, grad: Tensor, saved: Tensor, scale: float, wanted: Wanted) -> Gradients:
    named, shape = _operands(op, rows)
    x, other = rows.x, rows.other
    dx = x.new_empty(shape)
    dother = other.new_empty(shape) if wanted[1] and other is not None else None
    one = not any(grad.stride())
    grad = grad.resolve_neg() if one else grad.resolve_neg().contiguous()
    named |= launching.number("scale", scale, x) | {"grad": grad, "grad_rows": 1 if one else grad.numel()}
    _launch(backward, named | {"out": dx, "other_out": dother, "saved": saved, "KEPT": saved.shape[-1]})
    return dx.sum_to_size(x.shape), dother if dother is None else dother.sum_to_size(other.shape)


def _operands(op: str, rows: Rows) -> tuple[dict[str, Any], torch.Size]:
    """What a pass reads, as kernels name it, and (*batch, K)."""
    x, other, mask, other_mask, category, keep = rows
    shape = x.shape if other is None or other.shape == x.shape else torch.broadcast_tensors(x, other)[0].shape
    named: dict[str, Any] = {"OP": op, "T": launching.TYPES[compute_dtype(x.dtype)]}
    named |= {"rows": shape[:-1].numel(), "cols": shape[-1], "UNIT": 4 if shape[-1] % 4 == 0 else 1}
    named |= _operand("logits", "mask", "in_rows", x, mask, shape)
    named |= _operand("other", "other_mask", "other_rows", other, other_mask, shape)
    named["category"] = None if category is None else category.contiguous()
    named["keep"] = None if keep is None else keep.contiguous().view(torch.uint8)
    return named, shape


def _operand(
    name: str, mask_name: str, rows_name: str, t: Tensor | None, mask: Tensor | None, shape: torch.Size
) -> dict[str, Any]:
    """An operand and its mask in contiguous memory. Where it lacks the first dimensions of ``shape``, its rows are read
    again and again; where it lacks others, it is expanded."""
    if t is None:
        return {name: None, mask_name: None, rows_name: 1}
    own = t.shape
    ones = next((d for d, n in enumerate(own) if n != 1), len(own) - 1)
    tail = own[ones:]
    if tail != shape[len(shape) - len(tail) :]:
        t, mask = t.expand(shape), None if mask is None else mask.expand(shape)
    t = t.resolve_neg().contiguous()
    mask = None if mask is None else mask.expand(t.shape).contiguous().view(torch.uint8)
    return {name: t, mask_name: mask, rows_name: t.numel() // shape[-1]}


def _launch(kernel: Any, named: dict[str, Any]) -> None:
    if named["rows"]:
        launching.launch(kernel, rule_tile(named["rows"], named["cols"], named["logits"].dtype).by_row, named)


@triton.jit
def _at(pointer, row, rows, cols, UNIT: tl.constexpr):
    """Where rows begin in an operand that has ``rows`` of them."""
    return starts(pointer, row % rows, 1, 0, cols, True, UNIT)


@triton.jit
def _load(start, mask, there, first, Q: tl.constexpr, T: tl.constexpr, UNIT: tl.constexpr):
    """Elements of a block, -inf where forbidden and outside, and which are allowed."""
    x = tl.load(along(start, first, 1, Q, UNIT), there, -INF).to(T)
    allowed = there
    if mask is not None:
        allowed = there & (tl.load(along(mask, first, 1, Q, UNIT), there, 0) != 0)
        x = tl.where(allowed, x, -INF)
    return x, allowed


@triton.jit
def _below(x, top):
    """x - top: 0 where x is the top, +inf too; all -inf in a row that has nothing."""
    return tl.where(top == -INF, x, tl.where(x == top, 0, x - top))


@triton.jit
def _exp(a):
    return tl.exp2(a * LOG2_E)


@triton.jit
def _log(tops, rest):
    """log sum exp a from the number of elements at the top and the sum of the others, which keeps its last places
    beside 1; +inf in a row that has nothing, so that its log p are -inf."""
    n = tl.where(tops == 0, 1, tops)
    r = rest / n
    u = 1 + r
    log1p = tl.where(u == 1, r, tl.log(u) * (r / tl.where(u == 1, 1, u - 1)))  # the quotient undoes the rounding of u
    return tl.where(tops + rest == 0, INF, tl.log(n) + log1p)


@triton.jit
def _times(weight, x):
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
    x_at = _at(logits, row, in_rows, cols, UNIT)
    m_at = None if mask is None else _at(mask, row, in_rows, cols, UNIT)
    t_at = None if other is None else _at(other, row, other_rows, cols, UNIT)
    n_at = None if other_mask is None else _at(other_mask, row, other_rows, cols, UNIT)
    top = tl.full((1, R, 1), -INF, T)
    y_top, drawn = top, tl.full((1, R, 1), -1, tl.int64)
    for first in range(0, cols, 4 * Q):
        there = inside(kept, cols, first, Q, UNIT)
        x, _ = _load(x_at, m_at, there, first, Q, T, UNIT)
        top = tl.maximum(top, highest(x))
        if KL:
            y, _ = _load(t_at, n_at, there, first, Q, T, UNIT)
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
        x, _ = _load(x_at, m_at, there, first, Q, T, UNIT)
        a = _below(x, top)
        e = _exp(a)
        tops, rest = tops + fold(tl.where(a == 0, 1.0, 0.0)), rest + fold(tl.where(a == 0, 0, e))
        if OP == "entropy":
            value += fold(_times(e, a))
        elif OP == "index_nll":
            value += fold(tl.where(first + columns(Q) == drawn, -a, 0))
        elif OP == "nll":
            t, _ = _load(t_at, None, there, first, Q, T, UNIT)
            t = tl.where(there, t, 0)
            value, mass = value + fold(_times(t, -a)), mass + fold(t)
        else:
            y, _ = _load(t_at, n_at, there, first, Q, T, UNIT)
            b = _below(y, y_top)
            y_tops, y_rest = y_tops + fold(tl.where(b == 0, 1.0, 0.0)), y_rest + fold(tl.where(b == 0, 0, _exp(b)))
            both, alone = (a != -INF) & (b != -INF), (a != -INF) & (b == -INF)
            value += fold(tl.where(both, _times(e, a - tl.where(both, b, 0)), 0))
            mass += fold(tl.where(alone, e, 0))
            far += fold(tl.where(alone, _times(e, a), 0))
            if OP == "kl_with_slope":
                alone = alone & (e != 0)
            impossible = tl.maximum(impossible, tl.max(tl.max(alone.to(tl.int32), 0), 1)[None, :, None])
    log, total = _log(tops, rest), tops + rest
    place = saved + row[None, :, None] * KEPT
    there = kept[None, :, None]
    tl.store(place, top, there)
    tl.store(place + 1, log, there)
    if KL:
        y_log, lost = _log(y_tops, y_rest), mass * over(total)
        held = tl.where(total == 0, 0, 1 - lost)  # the mass of what both laws have
        value = value * over(total) - _times(held, log - y_log)
        if OP == "kl_with_slope":
            value += far * over(total) - _times(lost, log + _least(T))
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
            value = value + _times(mass, log)
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
    x_at = _at(logits, row, in_rows, cols, UNIT)
    m_at = None if mask is None else _at(mask, row, in_rows, cols, UNIT)
    t_at = None if other is None else _at(other, row, other_rows, cols, UNIT)
    n_at = None if other_mask is None else _at(other_mask, row, other_rows, cols, UNIT)
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
        x, allowed = _load(x_at, m_at, there, first, Q, T, UNIT)
        log_p = _below(x, top) - log
        p = _exp(log_p)
        if OP == "entropy":
            dx = _times(p, log_p - value)
        elif OP == "index_nll":
            dx = tl.where(log == INF, 0, p - tl.where(first + columns(Q) == drawn, 1, 0))
        elif OP == "nll":
            t, _ = _load(t_at, None, there, first, Q, T, UNIT)
            dx = tl.where(log == INF, 0, p * value - t)
            dy = -tl.where((t == 0) & (log_p == -INF), 0, log_p)
            counts = there
        else:
            y, counts = _load(t_at, n_at, there, first, Q, T, UNIT)
            held = tl.load(place + 5, known, 0)
            log_q = _below(y, tl.load(place + 2, known, 0)) - tl.load(place + 3, known, 0)
            both = (log_p != -INF) & (log_q != -INF)
            if OP == "kl_with_slope":
                dx = _times(p, log_p - tl.where(log_q == -INF, _least(T), log_q) - value)
            else:  # what q alone forbids is constant, and only moves the others' mass
                dx = _times(p, tl.where(both, log_p - tl.where(both, log_q, 0) - value + (1 - held), -value - held))
            dy = _exp(log_q) * held - tl.where(both, p, 0)
        shown = inside(real, cols, first, Q, UNIT)
        dx = tl.where(allowed, dx * g, 0)
        tl.store(along(_at(out, row, rows, cols, UNIT), first, 1, Q, UNIT), dx.to(out.dtype.element_ty), shown)
        if other_out is not None:
            dy = tl.where(counts, dy * g, 0)
            dy_at = along(_at(other_out, row, rows, cols, UNIT), first, 1, Q, UNIT)
            tl.store(dy_at, dy.to(other_out.dtype.element_ty), shown)
