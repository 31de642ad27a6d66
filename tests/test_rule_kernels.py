"""The compiled passes of the rules equal their reference, which equals the formulas of the rules.

How the distance is measured. A gradient is a difference of terms as large as g / tau, so the unit is that of float32 at
the largest |g| / tau of the row, and what counts is the distance from the reference in float64 on the same float32
inputs. A closed form is within 4 such units. A rule with noise also has the rounding of its noise, divided by tau: its
distance is within 4 times that of the reference in float32, or 4 units.
"""

from __future__ import annotations

import kernel_cases
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

import softdraw
from softdraw.arguments import KernelRule, compute_dtype
from softdraw.bench.memory import extra_bytes
from softdraw.kernels import cpu, native, reference
from tests.methods import PATHWISE, label

pytestmark = pytest.mark.skipif(native.library() is None, reason="the kernels are not compiled here")
UNITS = 4
fuzz = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
RULES = [
    KernelRule("straight_through"),
    KernelRule("zgr"),
    KernelRule("reinmax"),
    KernelRule("gapped", gap=0.8),
    KernelRule("gumbel_rao", draws=1),
    KernelRule("gumbel_rao", draws=4),
    KernelRule("reinmax_rao", draws=3),
]
ISAS = ("x86-64-v2", "x86-64-v3", "x86-64-v4", "baseline")


@pytest.fixture(params=ISAS)
def isa(request):
    """Every instruction set that this processor has, one after the other."""
    before = native.isa()
    try:
        native.use_isa(request.param)
    except ValueError:
        pytest.skip(f"this processor lacks {request.param}")
    yield request.param
    native.use_isa(before)


def wide(x):
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


def units(ours: Tensor, exact: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The largest distance in every row, in units of the dtype at ``scale``."""
    assert torch.equal(ours.isnan(), exact.isnan())
    eps = torch.finfo(dtype).eps
    distance = (ours.double() - exact).abs().nan_to_num(0).amax(-1)
    return distance / (eps * scale.clamp_min(1e-30))


def check(call, draw, grad, drawn, rule, is_given):
    """``call`` names the operation; it is compared in the compute dtype, and its rounded result with that."""
    dtype = compute_dtype(draw.logits.dtype)
    draw, grad = draw._replace(logits=draw.logits.to(dtype)), grad.to(dtype)
    if not draw.logits.numel():
        return
    ours = getattr(cpu, call)(draw, grad, drawn, rule, is_given)
    double = draw._replace(logits=draw.logits.double(), tau=wide(draw.tau))
    exact = getattr(reference, call)(double, grad.double(), drawn, rule, is_given)
    single = getattr(reference, call)(draw, grad, drawn, rule, is_given)
    tau = draw.tau if isinstance(draw.tau, Tensor) else torch.tensor(draw.tau)
    over = 1 / tau.double().clamp_max(1)
    row = grad.double().abs().amax(-1, keepdim=True) * (over if tau.dim() == grad.dim() else over.amax())
    scale = row.expand(*grad.shape[:-1], 1).squeeze(-1)
    if rule.name == "gumbel_rao" and rule.draws == 1 and not is_given:  # gumbel_softmax's own: NaN rows are all NaN
        ours = torch.where(ours.isnan(), exact.to(ours.dtype), ours)
    got, theirs = units(ours, exact, scale, dtype), units(single, exact, scale, dtype)
    allowed = (4 * theirs).clamp_min(UNITS) if rule.noisy else torch.full_like(got, UNITS)
    assert bool((got <= allowed).all()), (got.max(), theirs.max())


@pytest.mark.parametrize("is_given", [False, True])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.name}-{rule.draws}")
@given(case=kernel_cases.CASES)
@fuzz
def test_a_rule_equals_its_reference(rule, is_given, case):
    draw = case.draw._replace(col_start=0)
    index = reference.index(draw, 1)[0]
    check("rule_backward", draw, case.grad, index, rule, is_given)


def test_rules_on_every_instruction_set(isa):
    for shape in ((7, 3), (9, 10), (5, 32), (4, 63), (3, 100), (2, 1500)):
        for masked in ("none", "full"):
            case = kernel_cases.make(shape, torch.float32, "plain", masked, False, "number", "counted", 0, 7)
            for rule in RULES:
                check("rule_backward", case.draw, case.grad, reference.index(case.draw, 1)[0], rule, False)


@pytest.mark.parametrize("dtype", kernel_cases.DTYPES)
def test_a_result_is_the_wide_one_rounded(dtype):
    case = kernel_cases.make((6, 40), dtype, "plain", "full", False, "number", "counted", 0, 3)
    index = reference.index(case.draw, 1)[0]
    for rule in RULES:
        ours = cpu.rule_backward(case.draw, case.grad, index, rule, False)
        assert ours.dtype == dtype
        exact = reference.rule_backward(case.draw, case.grad, index, rule, False)
        torch.testing.assert_close(ours, exact, rtol=4 * torch.finfo(dtype).eps, atol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("layout", ["plain", "transposed", "spread", "expanded"])
def test_samples_have_streams_and_gradients_of_their_own(layout):
    """Several samples of one call are those of several calls, in values and in gradients."""
    case = kernel_cases.make((5, 12), torch.float32, layout, "full", False, "rows", "ids", 0, 11)
    y, index = cpu.hard_index(case.draw, 3)
    assert torch.equal(index, reference.index(case.draw, 3))
    grad = torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(1))
    for rule in RULES:
        together = cpu.rule_backward(case.draw, grad, index, rule, False)
        for i in range(3):
            exact = reference.rule_backward(case.draw, grad, index, rule, False)[i]
            torch.testing.assert_close(together[i], exact, rtol=1e-4, atol=1e-5)
            if not rule.noisy:
                assert torch.equal(together[i], cpu.rule_backward(case.draw, grad[i], index[i], rule, False))
    assert torch.equal(y.argmax(-1)[index >= 0], index[index >= 0])


# Bits


def bit_case(special: bool, dtype: torch.dtype, key: int = 0):
    case = kernel_cases.make((3, 300), dtype, "plain", "full", special, "number", "counted", 0, key)
    ids = torch.randint(2**62, (3, 300), generator=torch.Generator().manual_seed(key))
    tau = torch.rand(3, 300, generator=torch.Generator().manual_seed(key + 1)).to(compute_dtype(dtype)) + 0.2
    return case.draw._replace(rows=ids, tau=tau), case.grad


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("dtype", kernel_cases.DTYPES)
def test_bits_are_draws_of_two_categories(dtype, special):
    for key in range(20):
        draw, _ = bit_case(special, dtype, key)
        for samples in (None, 3):
            torch.testing.assert_close(
                cpu.bits(draw, samples), reference.bits(draw, samples), rtol=0, atol=0, equal_nan=True
            )


@pytest.mark.parametrize("is_given", [False, True])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.name}-{rule.draws}")
@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gradient_of_bits_equals_that_of_two_categories(dtype, special, rule, is_given):
    for key in range(5):
        draw, grad = bit_case(special, dtype, key)
        b = reference.bits(draw, None)
        ours = cpu.bits_backward(draw, grad, b, rule, is_given)
        double = draw._replace(logits=draw.logits.double(), tau=draw.tau.double())
        exact = reference.bits_backward(double, grad.double(), b, rule, is_given)
        single = reference.bits_backward(draw, grad, b, rule, is_given)
        scale = (grad.double().abs() / draw.tau.double().clamp_max(1)).unsqueeze(-1).amax(-1)
        got, theirs = (units(x.unsqueeze(-1), exact.unsqueeze(-1), scale, dtype) for x in (ours, single))
        allowed = (4 * theirs).clamp_min(UNITS) if rule.noisy else torch.full_like(got, UNITS)
        assert bool((got <= allowed).all()), got.max()


def test_bits_on_every_instruction_set(isa):
    draw, grad = bit_case(False, torch.float32)
    b = cpu.bits(draw, None)
    assert torch.equal(b, reference.bits(draw, None))
    for rule in RULES:
        exact = reference.bits_backward(draw, grad, b, rule, False)
        torch.testing.assert_close(cpu.bits_backward(draw, grad, b, rule, False), exact, rtol=1e-4, atol=1e-5)


# Through the public functions


@pytest.mark.parametrize("rule", [rule for rule in PATHWISE if rule.kernel() is not None], ids=label)
@pytest.mark.parametrize("law", [softdraw.OneHotCategorical, softdraw.Bernoulli])
def test_the_operation_gives_what_the_formula_gives(rule, law, monkeypatch):
    """In float64: a draw and its gradient with the operation, and with the formula in its place."""
    from softdraw.rules import fused

    def drawn():
        x = torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
        y = softdraw.draw(law(x), rule, (2,), seed=3)
        y.backward(torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape))
        return y.detach(), x.grad

    operation = drawn()
    monkeypatch.setattr(fused, "_direct", lambda x: False)
    formula = drawn()
    for a, b in zip(operation, formula, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def saved(x, rule):
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        softdraw.draw(x, rule)
    return kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_draw_keeps_its_logits_and_eight_bytes_a_row(dtype):
    x = torch.randn(50, 64, dtype=dtype, requires_grad=True)
    for rule in (softdraw.ZGR(), softdraw.ReinMax(1.1), softdraw.StraightThrough(), softdraw.GappedStraightThrough()):
        kept = saved(x, rule)
        assert [t.data_ptr() for t in kept if t.is_floating_point()] == [x.data_ptr()]
        assert [(t.dtype, tuple(t.shape)) for t in kept if not t.is_floating_point()] == [(torch.int64, (50,))]


def test_memory_does_not_grow_with_the_samples_of_gumbel_rao():
    x = torch.randn(256, 64, requires_grad=True)

    def gradient(samples):
        y = softdraw.draw(x, softdraw.GumbelRao(0.5, samples), seed=0)
        return torch.autograd.grad(y, x, torch.ones_like(y))[0]

    gradient(2)
    more = extra_bytes(lambda: gradient(400))  # its noise would be 26 MB
    if more is None:
        pytest.skip("Linux alone tells the peak")
    assert more < 4e6
