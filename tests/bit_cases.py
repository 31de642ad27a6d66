"""What the passes over bits are compared on, their formulas in float64, and how far they may be from these.

How "within 4 ulp" is measured. A result is a sum of terms, and its error is that of the largest: the unit is the last
place, in the dtype of the computation, of the sum of the terms' magnitudes. A result of 16 bits is rounded once more.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from softdraw.arguments import compute_dtype
from softdraw.kernels.bits_cpu import UNIT_INTERVAL, ZERO_OR_ONE, Bits
from softdraw.numerics import times

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SHAPES = [(0,), (1,), (7,), (3, 21), (5, 100)]


def operands(shape: tuple[int, ...], dtype: torch.dtype, masked: bool = False) -> Bits:
    """Logits (some large, some tiny), targets, weights, pos_weights; NaN wherever the mask leaves an element out."""
    g = torch.Generator().manual_seed(math.prod(shape))
    wide = compute_dtype(dtype)
    x = 3 * torch.randn(shape, generator=g, dtype=torch.float64)
    x = torch.where(torch.rand(shape, generator=g) < 0.2, 10 * x, x).to(dtype)
    y, w, p = (torch.rand(shape, generator=g, dtype=torch.float64).to(wide) for _ in range(3))
    if not masked:
        return Bits(x, y, w, p, allowed=UNIT_INTERVAL)
    mask = torch.rand(shape, generator=g) < 0.7
    hidden = [t.masked_fill(~mask, math.nan) for t in (x, y, w)]
    return Bits(*hidden, p, mask, allowed=UNIT_INTERVAL)


def assert_within(got: Tensor, true: Tensor, size: Tensor, units: float = 4) -> None:
    wide = compute_dtype(got.dtype)
    units *= 2 if wide == torch.float64 else 1
    allowed = units * torch.finfo(wide).eps * size + torch.finfo(got.dtype).tiny
    if got.dtype != wide:
        allowed = allowed + torch.finfo(got.dtype).eps * true.abs()
    assert got.shape == true.shape
    different = (got.double() - true).abs()
    assert bool((different <= allowed).all()), float((different / allowed).max())


def wide_nll(bits: Bits) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, y, w and p in float64, with zeros for what the mask leaves out."""
    x, y, w, p = (t.double() for t in bits[:4] if t is not None)
    if bits.mask is not None:
        x, y, w = (t.masked_fill(~bits.mask, 0) for t in (x, y, w))
    return x, y, w, p


def check_nll(passes: Any, shape: tuple, dtype: torch.dtype, masked: bool, reduction: int, units: float = 4) -> None:
    bits = operands(shape, dtype, masked)._replace(reduction=reduction)
    x, y, w, p = wide_nll(bits)
    true = w * (p * y * -logsigmoid(x) + (1 - y) * -logsigmoid(-x))
    slope = w * ((1 - y) * torch.sigmoid(x) - p * y * torch.sigmoid(-x))
    sizes = w * ((1 - y) * torch.sigmoid(x) + p * y * torch.sigmoid(-x))
    count = float(w.sum()) or 1.0
    divisor = count if reduction == 2 else 1.0
    out, saved, legal = passes.nll(bits)
    assert legal
    want = true if reduction == 0 else true.sum() / divisor
    assert_within(out, want, want.abs(), units)
    grad = torch.full_like(out, 0.5)
    dx = passes.nll_backward(bits, grad, saved)
    assert dx.dtype == dtype
    assert_within(dx, 0.5 * slope / divisor, 0.5 * sizes / divisor, units)


def entropy(x: Tensor) -> Tensor:
    return -(times(torch.sigmoid(x), logsigmoid(x)) + times(torch.sigmoid(-x), logsigmoid(-x)))


def check_functions(passes: Any, shape: tuple, dtype: torch.dtype, units: float = 4) -> None:
    """The entropy, the variance and the divergence, and their gradients."""
    within = functools.partial(assert_within, units=units)
    bits = operands(shape, dtype)
    x, z = bits.x.double(), (bits.other * 6 - 3).to(compute_dtype(dtype))  # pyright: ignore[reportOptionalOperand]
    on, off, q, not_q = torch.sigmoid(x), torch.sigmoid(-x), torch.sigmoid(z.double()), torch.sigmoid(-z.double())
    grad = torch.linspace(0.25, 1, math.prod(shape)).reshape(shape).to(dtype)
    g, plain = grad.double(), Bits(bits.x)
    value, variance = entropy(x), on * off
    within(passes.entropy(plain), value, value)
    within(passes.entropy_backward(plain, grad), -g * x * variance, g * x.abs() * variance)
    within(passes.variance(plain), variance, variance)
    within(passes.variance_backward(plain, grad), g * variance * (off - on), g * variance)
    pair, d = Bits(bits.x, z), z.double()
    terms = on * (logsigmoid(x) - logsigmoid(d)), off * (logsigmoid(-x) - logsigmoid(-d))
    sizes = on * -(logsigmoid(x) + logsigmoid(d)) + off * -(logsigmoid(-x) + logsigmoid(-d))
    within(passes.kl(pair), sum(terms), sizes)
    dx, dz = passes.kl_backward(pair, grad, (True, True))
    assert dx is not None
    assert dz is not None
    within(dx, g * variance * (x - d), g * variance * (x - d).abs())
    within(dz, g * (q * off - on * not_q), g * (q * off + on * not_q))


def check_share(passes: Any, shape: tuple, dtype: torch.dtype, masked: bool, reduction: int, units: float = 4) -> None:
    read = operands(shape, dtype, masked)
    rows = shape[0]
    bits = Bits(read.x, weight=read.weight, mask=read.mask, number=0.3, reduction=reduction, rows=rows)
    x, _, w, _ = wide_nll(read)
    w = w / w.sum(-1, keepdim=True)
    away = (w * torch.sigmoid(x)).sum(-1) - 0.3
    divisor = float(rows) if reduction == 2 else 1.0
    want = away.square() if reduction == 0 else away.square().sum() / divisor
    out, saved = passes.share(bits)
    assert_within(out, want, away.abs().sum() if reduction else away.abs(), units)
    slope = 2 * w * torch.sigmoid(x) * torch.sigmoid(-x) / divisor
    dx = passes.share_backward(bits, torch.ones_like(out), saved)
    assert_within(dx, away.unsqueeze(-1) * slope, slope, units)


def check_limits(passes: Any, dtype: torch.dtype) -> None:
    inf, nan = math.inf, math.nan
    x = torch.tensor([inf, -inf, inf, -inf, nan, 0.0], dtype=dtype)
    y = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 1.0], dtype=compute_dtype(dtype))
    bits = Bits(x, y, allowed=ZERO_OR_ONE)

    def same(got: Tensor, want: list[float]) -> None:
        close = torch.finfo(got.dtype).eps
        torch.testing.assert_close(got.double(), torch.tensor(want).double(), rtol=close, atol=1e-7, equal_nan=True)

    same(passes.nll(bits)[0], [0, 0, inf, inf, nan, math.log(2)])
    same(passes.nll_backward(bits, torch.ones_like(y), None), [0, 0, 1, -1, nan, -0.5])
    same(passes.nll_backward(bits._replace(law=True), torch.ones_like(x), None), [0, 0, 0, 0, nan, 0.5])
    same(passes.entropy(Bits(x)), [0, 0, 0, 0, nan, math.log(2)])
    same(passes.entropy_backward(Bits(x), torch.ones_like(x)), [0, 0, 0, 0, nan, 0])
    same(passes.variance(Bits(x)), [0, 0, 0, 0, nan, 0.25])
    z = torch.tensor([inf, -inf, -inf, 0.0, 0.0, -inf], dtype=y.dtype)
    same(passes.kl(Bits(x, z)), [0, 0, inf, math.log(2), nan, inf])
    x, z = torch.tensor([0.5, 0.5, 0.5, inf], dtype=dtype), torch.tensor([inf, -inf, 0.5, 0.5], dtype=y.dtype)
    same(passes.kl(Bits(x, z)), [inf, inf, 0, math.log1p(math.exp(-0.5))])
    p = 1 / (1 + math.exp(-0.5))  # of the value that q allows: p log p, with p' = p (1 - p)
    slopes = [p * (1 - p) * (math.log(p) + 1), -p * (1 - p) * (math.log(1 - p) + 1), 0, 0]
    dx, dz = passes.kl_backward(Bits(x, z), torch.ones_like(x), (True, True))
    same(dx, slopes)
    same(dz, [0, 0, 0, p - 1])
