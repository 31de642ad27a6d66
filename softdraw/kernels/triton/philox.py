"""The noise contract in Triton: Philox words, and the Gumbel values made from them.

A thread takes the four words of one Philox call for four contiguous columns, so tiles are (4, rows, quarters): which
word an element takes is then known when its thread is compiled, where a join and a reshape would go through shared
memory. Row operands (seed, id, stream) have the shape (1, rows, 1), or are one value.
"""

# What is constant has capitals, and Triton reads `if` and `else` by its own rules:
# ruff: noqa: N803, RET505
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl

from softdraw.kernels.triton.tiles import columns, cut, row_value

_M0, _M1 = tl.constexpr(0xD2511F53), tl.constexpr(0xCD9E8D57)
_W0, _W1 = tl.constexpr(0x9E3779B9), tl.constexpr(0xBB67AE85)
LN_2 = tl.constexpr(0.6931471805599453)
_U_MAX = tl.constexpr(1 - 2**-24)
_TAIL = tl.constexpr(256)
# Inline assembly is for NVIDIA's compiler alone: the interpreter and AMD's take Triton's own log2.
_PTX = tl.constexpr(os.environ.get("TRITON_INTERPRET") != "1" and torch.version.hip is None)


@triton.jit
def log2(x):
    """log2 by the special-function unit, which Triton has no name for: its own is twenty instructions.

    Within 2^-22.6, absolutely for x in [1/2, 2] and relatively elsewhere (PTX ISA, lg2.approx).
    """
    if _PTX and x.dtype == tl.float32:
        return tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return tl.log2(x)


@triton.jit
def _exponential(u):
    """-log(1 - u), to the last places of u however small it is."""
    v = 1 - u
    if u.dtype == tl.float64:
        # Kahan: the rounding of 1 - u is undone by the quotient, whose denominator is exact.
        return tl.where(v == 1, u, -tl.log(v) * (u / tl.where(v == 1, 1, 1 - v)))
    else:
        # log2 is absolutely, not relatively precise near 1. Up to 1/4, u + u^2 q(u) with q = 1/2 + u/3 + ... of degree
        # 4, fitted so that the largest relative error of the whole is least: 4.1e-8, below half a unit.
        q = 0.14670333 + 0.33570964 * u
        q = 0.5000073 + u * (0.33293072 + u * (0.25711022 + u * q))
        return tl.where(u < 0.25, u + u * (u * q), -LN_2 * log2(v))


@triton.jit
def _product(x, M: tl.constexpr):
    """The two halves of x * M, from one 64-bit product: two 32-bit ones would cost more."""
    both = x.to(tl.uint64) * M
    return (both >> 32).to(tl.uint32), both.to(tl.uint32)


@triton.jit
def philox(seed, c0, c1, c2, c3):
    """Philox4x32-10. Counters of smaller shapes are broadcast where they first meet, not before."""
    k0, k1 = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    for _ in tl.static_range(10):
        high0, low0 = _product(c0, _M0)
        high1, low1 = _product(c2, _M1)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 = tl.add(k0, _W0, sanitize_overflow=False)
        k1 = tl.add(k1, _W1, sanitize_overflow=False)
    return c0, c1, c2, c3


@triton.jit
def exponential_of(x, column, seed, low, high, stream, T: tl.constexpr):
    """Standard exponential values of the words x in these columns; all operands have three dimensions, or none."""
    # Either way u is made from the word in its place: beside each other they would take twice the registers.
    if tl.min(tl.min(tl.min(x, 0), 1), 0) < _TAIL:  # once in 2^24 words: their low bits are a second word
        tail, _, _, _ = philox(seed, column, low, high, stream ^ tl.full((1, 1, 1), 0x80000000, tl.uint32))
        u = (x.to(T) + tl.where(x < _TAIL, (tail.to(T) + 0.5) * 2**-32, 0.5)) * 2**-32
    else:
        u = x.to(T) * 2**-32 + 2**-33
    return _exponential(tl.minimum(u, _U_MAX))


@triton.jit
def _word(k, w0, w1, w2, w3):
    return tl.where(k < 2, tl.where(k == 0, w0, w1), tl.where(k == 2, w2, w3))


@triton.jit
def gumbel(seed, row, stream, quad, Q: tl.constexpr, T: tl.constexpr):
    """Standard Gumbel values, (4, R, Q), in columns from 4 ``quad``."""
    low, high, stream = row.to(tl.uint32), (row >> 32).to(tl.uint32), stream.to(tl.uint32)
    counter = quad.to(tl.uint32) + tl.arange(0, Q).to(tl.uint32)[None, None, :]
    w0, w1, w2, w3 = philox(seed, counter, low, high, stream)
    k = tl.arange(0, 4)[:, None, None]
    column = counter * 4 + k.to(tl.uint32)
    return gumbel_of(exponential_of(_word(k, w0, w1, w2, w3), column, seed, low, high, stream, T))


@triton.jit
def gumbel_of(e):
    """-log e."""
    return log2(e) * -LN_2


@triton.jit
def exponential(seed, row, stream, first, Q: tl.constexpr, T: tl.constexpr):
    """Standard exponential values, (4, R, Q), in columns from ``first``, a number. A block of noise starts anywhere: if
    not at a multiple of 4, four columns take their words from two counters."""
    low, high, stream, first = row.to(tl.uint32), (row >> 32).to(tl.uint32), stream.to(tl.uint32), first.to(tl.uint32)
    counter = (first >> 2) + tl.arange(0, Q).to(tl.uint32)[None, None, :]
    w0, w1, w2, w3 = philox(seed, counter, low, high, stream)
    k = (first & 3) + tl.arange(0, 4).to(tl.uint32)[:, None, None]
    x = _word(k, w0, w1, w2, w3)
    if (first & 3) != 0:
        w0, w1, w2, w3 = philox(seed, counter + 1, low, high, stream)
        x = tl.where(k < 4, x, _word(k - 4, w0, w1, w2, w3))
    return exponential_of(x, columns(Q).to(tl.uint32) + first, seed, low, high, stream, T)


@triton.jit(do_not_specialize=["rows", "cols", "col_start", "splits"])
def noise(
    out, seeds, ids, streams, rows, cols, col_start, splits,
    R: tl.constexpr, Q: tl.constexpr, T: tl.constexpr, EACH_SEED: tl.constexpr, EACH_STREAM: tl.constexpr,
):  # fmt: skip
    """Rows of ``cols`` Gumbel values, contiguous, from column ``col_start``; tiles start at a multiple of 4."""
    tile, split = cut(splits)
    row = tile.to(tl.int64) * R + tl.arange(0, R)
    kept = row < rows
    first = (col_start // 4) * 4 + split.to(tl.int64) * (4 * Q)
    id = tl.load(ids + row, mask=kept, other=0)[None, :, None]
    stream = row_value(streams, row, kept, EACH_STREAM)
    g = gumbel(row_value(seeds, row, kept, EACH_SEED), id, stream, first >> 2, Q, T)
    column = first - col_start + columns(Q)
    there = kept[None, :, None] & (column >= 0) & (column < cols)
    tl.store(out + row[None, :, None] * cols + column, g, mask=there)
