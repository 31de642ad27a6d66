"""The compiled passes over bits equal their formulas in float64, on every instruction set with any number of threads.

``bit_cases`` has the formulas and says how "within 4 ulp" is measured.
"""

from __future__ import annotations

import math

import pytest
import torch
from bit_cases import DTYPES, SHAPES, check_functions, check_limits, check_nll, check_share, operands

import softdraw
from softdraw.kernels import bits_cpu, native
from softdraw.kernels.bits_cpu import UNIT_INTERVAL, ZERO_OR_ONE, Bits

pytestmark = pytest.mark.skipif(native.library() is None, reason="the kernels are not compiled here")
SETS = ["x86-64-v2", "x86-64-v3", "x86-64-v4", "baseline"]


@pytest.fixture(params=SETS)
def isa(request):
    best = native.isa()
    try:
        native.use_isa(request.param)
    except ValueError:
        pytest.skip(f"no {request.param} here")
    yield request.param
    native.use_isa(best)


@pytest.mark.parametrize("reduction", [0, 1, 2])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nll(dtype, shape, masked, reduction, isa):
    check_nll(bits_cpu, shape, dtype, masked, reduction)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_entropy_variance_and_divergence(dtype, shape, isa):
    check_functions(bits_cpu, shape, dtype)


@pytest.mark.parametrize("reduction", [0, 1, 2])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_share(dtype, masked, reduction, isa):
    check_share(bits_cpu, (5, 100), dtype, masked, reduction)


@pytest.mark.parametrize("dtype", DTYPES)
def test_limits_at_infinity_and_nan(dtype, isa):
    check_limits(bits_cpu, dtype)


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


def test_the_divergence_of_equal_bits_has_no_gradient_to_the_last_bit():
    """Fused multiply-add rounds one of two equal products only."""
    x = torch.linspace(-9, 9, 101)
    for law in (x.clone().requires_grad_(), x.double().requires_grad_()):
        other = law.detach().clone().requires_grad_()
        torch.distributions.kl_divergence(softdraw.Bernoulli(law), softdraw.Bernoulli(other)).sum().backward()
        assert not law.grad.any()
        assert not other.grad.any()
