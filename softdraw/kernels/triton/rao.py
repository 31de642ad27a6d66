"""Gradients of the Rao-Blackwellised rules in Triton: conditional noise is made, used and dropped. See csrc/rao.h.

A program holds its rows and takes one block of noise after the other. Rows that are wider take three kernels: ``law``
leaves what the logits of each come to, ``sums`` what each block of noise does, 16 bytes a block, and ``mean`` makes
the noise again and adds the blocks up in the registers of a split.
"""

# What is constant has capitals, and Triton reads `if` and `else` by its own rules:
# ruff: noqa: N803
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from softdraw import noise
from softdraw.arguments import Draw, KernelRule, compute_dtype
from softdraw.kernels.triton import launching
from softdraw.kernels.triton.layout import Tile, each, flat, rao_tile
from softdraw.kernels.triton.philox import LN_2, exponential, gumbel_of, log2
from softdraw.kernels.triton.rules import STRIDES, load, top_of
from softdraw.kernels.triton.tiles import (
    INF,
    LOG2_E,
    along,
    columns,
    cut,
    fold,
    highest,
    inside,
    over,
    relative,
    row_value,
    starts,
    temperature,
)

_BOUND = ["tau", "draws", "rows", "cols", "col_start", "blocks", "inner", "splits"]
_MOST = tl.constexpr(60 * 0.6931471805599453)


def rao(draw: Draw, grad: Tensor, index: Tensor, rule: KernelRule, given: bool) -> Tensor:
    """The gradient of a rule with noise for the logits, of the shape of ``grad``."""
    out = torch.empty(grad.shape, dtype=grad.dtype, device=grad.device)
    if not out.numel():
        return out
    batch, reinmax = draw.logits.shape[:-1], rule.name == "reinmax_rao"
    assert draw.seed is not None
    seeds, each_seed = each(draw.seed, batch)
    mores, _ = each(noise.conditional(draw.seed), batch)
    named = launching.sampled(draw, out, grad, index) | {"seeds": seeds, "mores": mores, "EACH_SEED": each_seed}
    named |= {"ids": None if draw.rows is None else flat(draw.rows, batch), "col_start": draw.col_start}
    named |= {"blocks": rule.draws, "REINMAX": reinmax, "OWN": not (reinmax or given)}
    cut = rao_tile(named["draws"], named["cols"], draw.logits.dtype)
    if cut.splits == 1:
        launching.launch(whole, cut, named)
        return out
    n, dtype = named["draws"], compute_dtype(grad.dtype)
    named["laws"] = torch.empty((n, 3), dtype=dtype, device=grad.device)
    named["made"] = torch.empty((n, rule.draws, 4), dtype=dtype, device=grad.device)
    launching.launch(law, cut.by_row, named)
    launching.launch(sums, Tile(1, cut.cols, rule.draws, n * rule.draws, cut.warps), named)
    launching.launch(mean, cut, named)
    return out


@triton.jit
def _place(ats, ids, seeds, mores, number, kept, row, rows, EACH_SEED: tl.constexpr, ONCE: tl.constexpr):
    """The category that was drawn, the id, both seeds and the stream of every draw."""
    drawn = tl.load(ats + number, kept, -1)[None, :, None]
    id = row if ids is None else tl.load(ids + row, kept, 0)
    stream = tl.full((1, 1, 1), 0, tl.int64) if ONCE else (number // rows)[None, :, None]
    seed, more = row_value(seeds, row, kept, EACH_SEED), row_value(mores, row, kept, EACH_SEED)
    return drawn, id[None, :, None], seed, more, stream


@triton.jit
def _conditional(e, e_drawn, d, log_sum, here, drawn, tau):
    """y in proportion to (1 + e / (e_drawn w))^(-1 / tau), and 1 at ``here``; 0 in a row that has no sample.

    1 / w may be too large: at most 2^60 of it multiplies e, and the logarithm of the rest is subtracted.
    """
    surprise = log_sum - d
    bounded = tl.where(surprise < _MOST, surprise, _MOST)
    ratio = e / tl.where(drawn < 0, 1, e_drawn) * tl.exp2(bounded * LOG2_E)
    exponent = gumbel_of(ratio + 1) - (surprise - bounded)
    y = tl.exp2(tl.where(here, 0, exponent) * (LOG2_E / tau))
    return tl.where(drawn < 0, 0, y)


@triton.jit
def _noise(seed, more, block, cols, col_start, OWN: tl.constexpr):
    """The seed and the first column of a block of noise: those of the draw, if block 0 made the sample."""
    start = (block + tl.zeros((), tl.int64)) * cols
    if OWN:
        return tl.where(block == 0, seed, more), tl.where(block == 0, col_start + tl.zeros((), tl.int64), start - cols)
    return more, start


@triton.jit
def _jacobian(y, g):
    """J(y) g for the law that is in proportion to y."""
    scale = over(fold(y))
    return y * scale * (g - fold(y * g) * scale)


@triton.jit
def _log_sum(total, REINMAX: tl.constexpr):
    """-log w of an exponent 0: of the law p, or of (p + D) / 2."""
    return (log2(total) + (1 if REINMAX else 0)) * LN_2


@triton.jit
def _finish(total, g, x, top, p_total, p_dot, blocks, tau, REINMAX: tl.constexpr):
    """The mean over tau of J(y) g; for ReinMax-Rao twice that less J(p) g / 2. NaN in a row that had NaN or +inf."""
    dx = total / blocks / tau
    if REINMAX:
        dx = 2 * dx - 0.5 * (relative(x, top, 1.0) * over(p_total) * (g - p_dot))
    return tl.where(top == INF, float("nan"), tl.where(x == -INF, 0, dx))


@triton.jit(do_not_specialize=[*_BOUND, *STRIDES])
def whole(
    out, logits, grad, mask, ats, seeds, mores, ids, taus, tau, draws, rows, cols, col_start, blocks, inner,
    out_outer, out_inner, out_col, in_outer, in_inner, in_col,
    grad_outer, grad_inner, grad_col, mask_outer, mask_inner, mask_col,
    OWN: tl.constexpr, REINMAX: tl.constexpr, R: tl.constexpr, Q: tl.constexpr, T: tl.constexpr, FLAT: tl.constexpr,
    UNIT: tl.constexpr, MASK_UNIT: tl.constexpr, EACH_SEED: tl.constexpr, EACH_TAU: tl.constexpr, ONCE: tl.constexpr,
):  # fmt: skip
    """dx of R draws. ``OWN`` says that block 0 of the noise made the sample."""
    number = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    kept = number < draws
    row = number if ONCE else number % rows
    x_at = starts(logits, number, inner, in_outer, in_inner, FLAT, UNIT)
    g_at = starts(grad, number, inner, grad_outer, grad_inner, FLAT, UNIT)
    m_at = None if mask is None else starts(mask, number, inner, mask_outer, mask_inner, FLAT, MASK_UNIT)
    there = inside(kept, cols, 0, Q, UNIT)
    x, g = load(x_at, in_col, g_at, grad_col, m_at, mask_col, there, 0, Q, T, UNIT, MASK_UNIT)
    drawn, id, seed, more, stream = _place(ats, ids, seeds, mores, number, kept, row, rows, EACH_SEED, ONCE)
    tau, top, here = temperature(taus, tau, row, kept, EACH_TAU), top_of(x), columns(Q) == drawn
    p_total, p_dot = fold(relative(x, top, 1.0)), tl.zeros((1, 1, 1), T)
    if REINMAX:
        p_dot = fold(relative(x, top, 1.0) * g) * over(p_total)
    d, log_sum = x - tl.where(top == -INF, 0, top), _log_sum(p_total, REINMAX)
    total = tl.zeros((4, R, Q), T)
    if OWN:
        x_noisy = x + gumbel_of(exponential(seed, id, stream, col_start.to(tl.int64), Q, T))
        total = _jacobian(relative(x_noisy, highest(x_noisy), tau), g)
    for block in range(1 if OWN else 0, blocks):
        key, start = _noise(seed, more, block, cols, col_start, OWN)
        e = exponential(key, id, stream, start, Q, T)
        y = _conditional(e, fold(tl.where(here, e, 0)), d, log_sum, here, drawn, tau)
        total += _jacobian(y, g)
    dx = _finish(total, g, x, top, p_total, p_dot, blocks, tau, REINMAX)
    out_at = starts(out, number, inner, out_outer, out_inner, FLAT, UNIT)
    tl.store(along(out_at, 0, out_col, Q, UNIT), dx.to(out.dtype.element_ty), there)


@triton.jit(do_not_specialize=["draws", "rows", "cols", "inner", *STRIDES[3:]])
def law(
    laws, logits, grad, mask, draws, rows, cols, inner,
    in_outer, in_inner, in_col, grad_outer, grad_inner, grad_col, mask_outer, mask_inner, mask_col,
    Q: tl.constexpr, T: tl.constexpr, FLAT: tl.constexpr, UNIT: tl.constexpr, MASK_UNIT: tl.constexpr,
):  # fmt: skip
    """The largest logit of a row, the sum of exponentials p, and <p, g> over that."""
    number = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)
    kept = number < draws
    x_at = starts(logits, number, inner, in_outer, in_inner, FLAT, UNIT)
    g_at = starts(grad, number, inner, grad_outer, grad_inner, FLAT, UNIT)
    m_at = None if mask is None else starts(mask, number, inner, mask_outer, mask_inner, FLAT, MASK_UNIT)
    top, total, dot = tl.full((1, 1, 1), -INF, T), tl.zeros((1, 1, 1), T), tl.zeros((1, 1, 1), T)
    for first in range(0, cols, 4 * Q):
        there = inside(kept, cols, first, Q, UNIT)
        x, g = load(x_at, in_col, g_at, grad_col, m_at, mask_col, there, first, Q, T, UNIT, MASK_UNIT)
        top = tl.maximum(top, top_of(x))
    for first in range(0, cols, 4 * Q):
        there = inside(kept, cols, first, Q, UNIT)
        x, g = load(x_at, in_col, g_at, grad_col, m_at, mask_col, there, first, Q, T, UNIT, MASK_UNIT)
        p = relative(x, top, 1.0)
        total, dot = total + fold(p), dot + fold(p * g)
    slot = laws + 3 * number[None, :, None]
    tl.store(slot, top)
    tl.store(slot + 1, total)
    tl.store(slot + 2, dot * over(total))


@triton.jit
def _wide_y(x, top, log_sum, e, e_drawn, own_top, here, drawn, block, tau, OWN: tl.constexpr):
    """y of one tile in one block of noise."""
    y = _conditional(e, e_drawn, x - tl.where(top == -INF, 0, top), log_sum, here, drawn, tau)
    return tl.where(block == 0, relative(x + gumbel_of(e), own_top, tau), y) if OWN else y


@triton.jit(do_not_specialize=[*_BOUND, *STRIDES[3:]])
def sums(
    made, laws, logits, grad, mask, ats, seeds, mores, ids, taus, tau, draws, rows, cols, col_start, blocks, inner,
    in_outer, in_inner, in_col, grad_outer, grad_inner, grad_col, mask_outer, mask_inner, mask_col,
    OWN: tl.constexpr, REINMAX: tl.constexpr, Q: tl.constexpr, T: tl.constexpr, FLAT: tl.constexpr,
    UNIT: tl.constexpr, MASK_UNIT: tl.constexpr, EACH_SEED: tl.constexpr, EACH_TAU: tl.constexpr, ONCE: tl.constexpr,
):  # fmt: skip
    """Of one draw and block of noise: the largest score where it made the sample, the noise at the sample where it is
    conditioned, the sum of y, and <y, g> over that."""
    slot = tl.program_id(0).to(tl.int64)
    block = slot % blocks
    number = slot // blocks + tl.arange(0, 1)
    kept = number < draws
    row = number if ONCE else number % rows
    x_at = starts(logits, number, inner, in_outer, in_inner, FLAT, UNIT)
    g_at = starts(grad, number, inner, grad_outer, grad_inner, FLAT, UNIT)
    m_at = None if mask is None else starts(mask, number, inner, mask_outer, mask_inner, FLAT, MASK_UNIT)
    drawn, id, seed, more, stream = _place(ats, ids, seeds, mores, number, kept, row, rows, EACH_SEED, ONCE)
    tau = temperature(taus, tau, row, kept, EACH_TAU)
    key, start = _noise(seed, more, block, cols, col_start, OWN)
    near = exponential(key, id, stream, start + tl.maximum(tl.load(ats + slot // blocks), 0), 1, T)
    e_drawn = fold(tl.where(columns(1) == 0, near, 0))
    top, log_sum = (
        tl.load(laws + 3 * number)[None, :, None],
        _log_sum(tl.load(laws + 3 * number + 1)[None, :, None], REINMAX),
    )
    own_top = tl.full((1, 1, 1), -INF, T)
    if OWN:  # noqa: SIM102
        if block == 0:
            for first in range(0, cols, 4 * Q):
                there = inside(kept, cols, first, Q, UNIT)
                x, g = load(x_at, in_col, g_at, grad_col, m_at, mask_col, there, first, Q, T, UNIT, MASK_UNIT)
                own_top = tl.maximum(own_top, highest(x + gumbel_of(exponential(key, id, stream, start + first, Q, T))))
    total, dot = tl.zeros((1, 1, 1), T), tl.zeros((1, 1, 1), T)
    for first in range(0, cols, 4 * Q):
        there, here = inside(kept, cols, first, Q, UNIT), first + columns(Q) == drawn
        x, g = load(x_at, in_col, g_at, grad_col, m_at, mask_col, there, first, Q, T, UNIT, MASK_UNIT)
        e = exponential(key, id, stream, start + first, Q, T)
        y = _wide_y(x, top, log_sum, e, e_drawn, own_top, here, drawn, block, tau, OWN)
        total, dot = total + fold(y), dot + fold(y * g)
    place = made + 4 * slot + tl.zeros((1, 1, 1), tl.int64)
    tl.store(place, own_top)
    tl.store(place + 1, e_drawn)
    tl.store(place + 2, total)
    tl.store(place + 3, dot * over(total))


@triton.jit(do_not_specialize=[*_BOUND, *STRIDES])
def mean(
    out, made, laws, logits, grad, mask, ats, seeds, mores, ids, taus, tau,
    draws, rows, cols, col_start, blocks, inner, splits,
    out_outer, out_inner, out_col, in_outer, in_inner, in_col,
    grad_outer, grad_inner, grad_col, mask_outer, mask_inner, mask_col,
    OWN: tl.constexpr, REINMAX: tl.constexpr, Q: tl.constexpr, T: tl.constexpr, FLAT: tl.constexpr,
    UNIT: tl.constexpr, MASK_UNIT: tl.constexpr, EACH_SEED: tl.constexpr, EACH_TAU: tl.constexpr, ONCE: tl.constexpr,
):  # fmt: skip
    """dx in one split of a draw."""
    tile, split = cut(splits)
    first = split.to(tl.int64) * (4 * Q)
    number = tile.to(tl.int64) + tl.arange(0, 1)
    kept = number < draws
    row = number if ONCE else number % rows
    x_at = starts(logits, number, inner, in_outer, in_inner, FLAT, UNIT)
    g_at = starts(grad, number, inner, grad_outer, grad_inner, FLAT, UNIT)
    m_at = None if mask is None else starts(mask, number, inner, mask_outer, mask_inner, FLAT, MASK_UNIT)
    there = inside(kept, cols, first, Q, UNIT)
    x, g = load(x_at, in_col, g_at, grad_col, m_at, mask_col, there, first, Q, T, UNIT, MASK_UNIT)
    drawn, id, seed, more, stream = _place(ats, ids, seeds, mores, number, kept, row, rows, EACH_SEED, ONCE)
    tau, here = temperature(taus, tau, row, kept, EACH_TAU), first + columns(Q) == drawn
    place = laws + 3 * number[None, :, None]
    top, p_total, p_dot = tl.load(place), tl.load(place + 1), tl.load(place + 2)
    log_sum, total = _log_sum(p_total, REINMAX), tl.zeros((4, 1, Q), T)
    for block in range(blocks):
        place = made + 4 * (number * blocks + block)[None, :, None]
        key, start = _noise(seed, more, block, cols, col_start, OWN)
        e = exponential(key, id, stream, start + first, Q, T)
        y = _wide_y(x, top, log_sum, e, tl.load(place + 1), tl.load(place), here, drawn, block, tau, OWN)
        total += y * over(tl.load(place + 2)) * (g - tl.load(place + 3))
    dx = _finish(total, g, x, top, p_total, p_dot, blocks, tau, REINMAX)
    out_at = starts(out, number, inner, out_outer, out_inner, FLAT, UNIT)
    tl.store(along(out_at, first, out_col, Q, UNIT), dx.to(out.dtype.element_ty), there)
