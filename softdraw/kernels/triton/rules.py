"""Gradients of the closed-form rules in Triton: one pass over a row, given its index. csrc/rules.h has the formulas.

A program holds its rows, or takes a wider one in blocks: once for the largest logit, which the gapped rule measures
from, once for the sums, and once to write.
"""

# What is constant has capitals, and Triton reads `if` and `else` by its own rules:
# ruff: noqa: N803, RET505, SIM108
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from softdraw.arguments import Draw, KernelRule
from softdraw.kernels.triton import launching
from softdraw.kernels.triton.layout import rule_tile
from softdraw.kernels.triton.tiles import (
    INF,
    LOG2_E,
    along,
    columns,
    fold,
    highest,
    inside,
    over,
    relative,
    starts,
    temperature,
)

STRIDES = [f"{x}_{step}" for x in ("out", "in", "grad", "mask") for step in ("outer", "inner", "col")]


def closed(draw: Draw, grad: Tensor, index: Tensor, rule: KernelRule) -> Tensor:
    """The gradient of a closed-form rule for the logits, of the shape of ``grad``."""
    out = torch.empty(grad.shape, dtype=grad.dtype, device=grad.device)
    if not out.numel():
        return out
    named = launching.sampled(draw, out, grad, index)
    named |= launching.number("gap", rule.gap, draw.logits) | {"RULE": rule.name}
    cut = rule_tile(named["draws"], named["cols"], draw.logits.dtype)
    launching.launch(gradient, cut.by_row, named | {"WIDE": cut.splits > 1})
    return out


@triton.jit
def load(
    logits, in_col, grad, grad_col, mask, mask_col, there, first,
    Q: tl.constexpr, T: tl.constexpr, UNIT: tl.constexpr, MASK_UNIT: tl.constexpr,
):  # fmt: skip
    """Logits, -inf where forbidden and outside, and the gradient that arrives, 0 there; of rows that start there."""
    x = tl.load(along(logits, first, in_col, Q, UNIT), there, -INF).to(T)
    g = tl.load(along(grad, first, grad_col, Q, UNIT), there, 0).to(T)
    if mask is not None:
        x = tl.where(tl.load(along(mask, first, mask_col, Q, MASK_UNIT), there, 0) != 0, x, -INF)
    return x, tl.where(x == -INF, 0, g)


@triton.jit
def top_of(x):
    """The largest logit, +inf where anything is NaN."""
    return highest(tl.where(x < INF, x, INF))


@triton.jit
def _softened(x, top, here, drawn, gap, tau, RULE: tl.constexpr):
    """exp of the exponents: of (x - top) / tau, or what the gapped rule makes of it, at most -gap but ``here``."""
    if RULE == "gapped":
        d = x - tl.where(top == -INF, 0, top)
        d = tl.where(d < -gap, d, -gap) + tl.where(drawn < 0, gap, 0)
        return tl.exp2(tl.where(here, 0, d) * (LOG2_E / tau))
    else:
        return relative(x, top, tau)


@triton.jit
def massive(p, g):
    """g where there is mass: an infinite g must not spread from a category that has none."""
    return tl.where(p == 0, 0, g)


@triton.jit
def _sums(x, g, top, here, drawn, gap, tau, RULE: tl.constexpr):
    """Sum of q and <q, g>, the same of p, which only ReinMax has beside q, and g at the category that was drawn."""
    q = _softened(x, top, here, drawn, gap, tau, RULE)
    total, dot = fold(q), fold(q * massive(q, g))
    p_total, p_dot = total, dot
    if RULE == "reinmax":
        p = relative(x, top, 1.0)
        p_total, p_dot = fold(p), fold(p * massive(p, g))
    return total, dot, p_total, p_dot, fold(tl.where(here, g, 0))


@triton.jit
def _form(x, g, top, here, drawn, gap, tau, total, dot, p_total, p_dot, g_drawn, RULE: tl.constexpr):
    """The gradient; NaN in a row that had NaN or +inf, else 0 where forbidden."""
    q = _softened(x, top, here, drawn, gap, tau, RULE) * over(total)
    dot = dot * over(total)
    if RULE == "zgr":
        dx = 0.5 * (q * (massive(q, g) - g_drawn) + tl.where(here, g_drawn - dot, 0))
    elif RULE == "reinmax":
        p = relative(x, top, 1.0) * over(p_total)
        dx = q * (massive(q, g) - 0.5 * (dot + g_drawn)) + tl.where(here, 0.5 * (g_drawn - dot), 0)
        dx -= 0.5 * (p * (massive(p, g) - p_dot * over(p_total)))
    else:
        dx = q * (massive(q, g) - dot) / tau
    return tl.where(top == INF, float("nan"), tl.where(x == -INF, 0, dx))


@triton.jit(do_not_specialize=["tau", "gap", "draws", "rows", "cols", "inner", *STRIDES])
def gradient(
    out, logits, grad, mask, ats, taus, gaps, tau, gap, draws, rows, cols, inner,
    out_outer, out_inner, out_col, in_outer, in_inner, in_col,
    grad_outer, grad_inner, grad_col, mask_outer, mask_inner, mask_col,
    RULE: tl.constexpr, WIDE: tl.constexpr, R: tl.constexpr, Q: tl.constexpr, T: tl.constexpr, FLAT: tl.constexpr,
    UNIT: tl.constexpr, MASK_UNIT: tl.constexpr, EACH_TAU: tl.constexpr, ONCE: tl.constexpr,
):  # fmt: skip
    """dx of R draws; ``ONCE`` says that each row has one."""
    number = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)  # of the draw: sample * rows + row
    kept = number < draws
    row = number if ONCE else number % rows
    drawn = tl.load(ats + number, kept, -1)[None, :, None]
    gap = gap if gaps is None else tl.load(gaps)
    if RULE == "zgr":
        tau = tl.full((1, 1, 1), 1.0, T)  # a literal would be float32
    else:
        tau = temperature(taus, tau, row, kept, EACH_TAU)
    x_at = starts(logits, number, inner, in_outer, in_inner, FLAT, UNIT)
    g_at = starts(grad, number, inner, grad_outer, grad_inner, FLAT, UNIT)
    m_at = None if mask is None else starts(mask, number, inner, mask_outer, mask_inner, FLAT, MASK_UNIT)
    out_at = starts(out, number, inner, out_outer, out_inner, FLAT, UNIT)
    if WIDE:
        top = tl.full((1, 1, 1), -INF, T)
        for first in range(0, cols, 4 * Q):
            there = inside(kept, cols, first, Q, UNIT)
            x, g = load(x_at, in_col, g_at, grad_col, m_at, mask_col, there, first, Q, T, UNIT, MASK_UNIT)
            top = tl.maximum(top, top_of(x))
        total, dot, g_drawn = tl.zeros((1, 1, 1), T), tl.zeros((1, 1, 1), T), tl.zeros((1, 1, 1), T)
        p_total, p_dot = total, dot
        for first in range(0, cols, 4 * Q):
            there = inside(kept, cols, first, Q, UNIT)
            x, g = load(x_at, in_col, g_at, grad_col, m_at, mask_col, there, first, Q, T, UNIT, MASK_UNIT)
            a, b, c, d, e = _sums(x, g, top, first + columns(Q) == drawn, drawn, gap, tau, RULE)
            total, dot, p_total, p_dot, g_drawn = total + a, dot + b, p_total + c, p_dot + d, g_drawn + e
        for first in range(0, cols, 4 * Q):
            there = inside(kept, cols, first, Q, UNIT)
            x, g = load(x_at, in_col, g_at, grad_col, m_at, mask_col, there, first, Q, T, UNIT, MASK_UNIT)
            here = first + columns(Q) == drawn
            dx = _form(x, g, top, here, drawn, gap, tau, total, dot, p_total, p_dot, g_drawn, RULE)
            tl.store(along(out_at, first, out_col, Q, UNIT), dx.to(out.dtype.element_ty), there)
    else:
        there, here = inside(kept, cols, 0, Q, UNIT), columns(Q) == drawn
        x, g = load(x_at, in_col, g_at, grad_col, m_at, mask_col, there, 0, Q, T, UNIT, MASK_UNIT)
        top = top_of(x)
        total, dot, p_total, p_dot, g_drawn = _sums(x, g, top, here, drawn, gap, tau, RULE)
        dx = _form(x, g, top, here, drawn, gap, tau, total, dot, p_total, p_dot, g_drawn, RULE)
        tl.store(along(out_at, 0, out_col, Q, UNIT), dx.to(out.dtype.element_ty), there)
