"""The compiled passes over bits equal their formulas in float64, on every instruction set with any number of threads.

How "within 4 ulp" is measured. A result is a sum of terms, and its error is that of the largest: the unit is the last
place, in the dtype of the computation, of the sum of the terms' magnitudes. A result of 16 bits is rounded once more.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from softdraw.arguments import compute_dtype
from softdraw.kernels import bits_cpu, native
from softdraw.kernels.bits_cpu import UNIT_INTERVAL, ZERO_OR_ONE, Bits
from softdraw.numerics import times

pytestmark = pytest.mark.skipif(native.library() is None, reason="the kernels are not compiled here")
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SETS = ["x86-64-v2", "x86-64-v3", "x86-64-v4", "baseline"]
SHAPES = [(0,), (1,), (7,), (3, 21), (5, 100)]


@pytest.fixture(params=SETS)
def isa(request):
    best = native.isa()
    try:
        native.use_isa(request.param)
    except ValueError:
        pytest.skip(f"no {request.param} here")
    yield request.param
    native.use_isa(best)


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


@pytest.mark.parametrize("reduction", [0, 1, 2])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nll(dtype, shape, masked, reduction, isa):
    bits = operands(shape, dtype, masked)._replace(reduction=reduction)
    x, y, w, p = wide_nll(bits)
    true = w * (p * y * -logsigmoid(x) + (1 - y) * -logsigmoid(-x))
    slope = w * ((1 - y) * torch.sigmoid(x) - p * y * torch.sigmoid(-x))
    sizes = w * ((1 - y) * torch.sigmoid(x) + p * y * torch.sigmoid(-x))
    count = float(w.sum()) or 1.0
    divisor = count if reduction == 2 else 1.0
    out, saved, legal = bits_cpu.nll(bits)
    assert legal
    want = true if reduction == 0 else true.sum() / divisor
    assert_within(out, want, want.abs())
    grad = torch.full_like(out, 0.5)
    dx = bits_cpu.nll_backward(bits, grad, saved)
    assert dx.dtype == dtype
    assert_within(dx, 0.5 * slope / divisor, 0.5 * sizes / divisor)


def entropy(x: Tensor) -> Tensor:
    return -(times(torch.sigmoid(x), logsigmoid(x)) + times(torch.sigmoid(-x), logsigmoid(-x)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_entropy_variance_and_divergence(dtype, shape, isa):
    bits = operands(shape, dtype)
    x, z = bits.x.double(), (bits.other * 6 - 3).to(compute_dtype(dtype))  # pyright: ignore[reportOptionalOperand]
    on, off, q, not_q = torch.sigmoid(x), torch.sigmoid(-x), torch.sigmoid(z.double()), torch.sigmoid(-z.double())
    grad = torch.linspace(0.25, 1, math.prod(shape)).reshape(shape).to(dtype)
    g, plain = grad.double(), Bits(bits.x)
    value, variance = entropy(x), on * off
    assert_within(bits_cpu.entropy(plain), value, value)
    assert_within(bits_cpu.entropy_backward(plain, grad), -g * x * variance, g * x.abs() * variance)
    assert_within(bits_cpu.variance(plain), variance, variance)
    assert_within(bits_cpu.variance_backward(plain, grad), g * variance * (off - on), g * variance)
    pair, d = Bits(bits.x, z), z.double()
    terms = on * (logsigmoid(x) - logsigmoid(d)), off * (logsigmoid(-x) - logsigmoid(-d))
    sizes = on * -(logsigmoid(x) + logsigmoid(d)) + off * -(logsigmoid(-x) + logsigmoid(-d))
    assert_within(bits_cpu.kl(pair), sum(terms), sizes)
    dx, dz = bits_cpu.kl_backward(pair, grad, (True, True))
    assert dx is not None
    assert dz is not None
    assert_within(dx, g * variance * (x - d), g * variance * (x - d).abs())
    assert_within(dz, g * (q * off - on * not_q), g * (q * off + on * not_q))


@pytest.mark.parametrize("reduction", [0, 1, 2])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_share(dtype, masked, reduction, isa):
    read = operands((5, 100), dtype, masked)
    bits = Bits(read.x, weight=read.weight, mask=read.mask, number=0.3, reduction=reduction, rows=5)
    x, _, w, _ = wide_nll(read)
    w = w / w.sum(-1, keepdim=True)
    away = (w * torch.sigmoid(x)).sum(-1) - 0.3
    divisor = 5.0 if reduction == 2 else 1.0
    want = away.square() if reduction == 0 else away.square().sum() / divisor
    out, saved = bits_cpu.share(bits)
    assert_within(out, want, away.abs().sum() if reduction else away.abs())
    slope = 2 * w * torch.sigmoid(x) * torch.sigmoid(-x) / divisor
    dx = bits_cpu.share_backward(bits, torch.ones_like(out), saved)
    assert_within(dx, away.unsqueeze(-1) * slope, slope)


@pytest.mark.parametrize("dtype", DTYPES)
def test_limits_at_infinity_and_nan(dtype, isa):
    inf, nan = math.inf, math.nan
    x = torch.tensor([inf, -inf, inf, -inf, nan, 0.0], dtype=dtype)
    y = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 1.0], dtype=compute_dtype(dtype))
    bits = Bits(x, y, allowed=ZERO_OR_ONE)

    def same(got: Tensor, want: list[float]) -> None:
        close = torch.finfo(got.dtype).eps
        torch.testing.assert_close(got.double(), torch.tensor(want).double(), rtol=close, atol=1e-7, equal_nan=True)

    same(bits_cpu.nll(bits)[0], [0, 0, inf, inf, nan, math.log(2)])
    same(bits_cpu.nll_backward(bits, torch.ones_like(y), None), [0, 0, 1, -1, nan, -0.5])
    same(bits_cpu.nll_backward(bits._replace(law=True), torch.ones_like(x), None), [0, 0, 0, 0, nan, 0.5])
    same(bits_cpu.entropy(Bits(x)), [0, 0, 0, 0, nan, math.log(2)])
    same(bits_cpu.entropy_backward(Bits(x), torch.ones_like(x)), [0, 0, 0, 0, nan, 0])
    same(bits_cpu.variance(Bits(x)), [0, 0, 0, 0, nan, 0.25])
    z = torch.tensor([inf, -inf, -inf, 0.0, 0.0, -inf], dtype=y.dtype)
    same(bits_cpu.kl(Bits(x, z)), [0, 0, inf, math.log(2), nan, inf])


@pytest.mark.parametrize(("value", "allowed"), [(0.5, ZERO_OR_ONE), (1.5, UNIT_INTERVAL), (math.nan, UNIT_INTERVAL)])
@pytest.mark.parametrize("at", [0, 20])
def test_a_target_that_is_not_allowed_is_seen(value, allowed, at, isa):
    y = torch.zeros(21)
    y[at] = value
    assert not bits_cpu.nll(Bits(torch.zeros(21), y, allowed=allowed))[2]
    assert bits_cpu.nll(Bits(torch.zeros(21), y, mask=y == 0, allowed=allowed))[2]


@pytest.mark.parametrize("rows", [1, 300])
def test_the_number_of_threads_changes_nothing(rows):
    read, before = operands((300, 1001), torch.float32), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            loss, saved, _ = bits_cpu.nll(read._replace(reduction=2))
            share, sums = bits_cpu.share(Bits(read.x, weight=read.weight, number=0.3, reduction=2, rows=rows))
            results.append([loss, saved, share, sums])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_law_has_the_log_probability(dtype):
    """The loss of a law is minus that of a loss: log p(b) = -nll."""
    x = torch.randn(50, generator=torch.Generator().manual_seed(1), dtype=dtype)
    b = (x > 0.3).to(dtype)
    out, _, legal = bits_cpu.nll(Bits(x, b, law=True, allowed=bits_cpu.ZERO_OR_ONE))
    assert legal
    truth = torch.distributions.Bernoulli(logits=x.double()).log_prob(b.double())
    torch.testing.assert_close(out.double(), truth, rtol=1e-6, atol=1e-6)
