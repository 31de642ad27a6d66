"""The compiled passes of the rules equal their reference, which equals the formulas of the rules."""

from __future__ import annotations

import kernel_cases
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from rule_cases import RULES, bit_case, check, check_bits

import softdraw
from softdraw.arguments import KernelRule
from softdraw.bench.memory import extra_bytes
from softdraw.kernels import cpu, native, reference
from tests.methods import PATHWISE, label

pytestmark = pytest.mark.skipif(native.library() is None, reason="the kernels are not compiled here")
fuzz = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
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


def run(name, *arguments):
    """An operation of the compiled kernels."""
    return getattr(cpu, name)(*arguments)


@pytest.mark.parametrize("is_given", [False, True])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.name}-{rule.draws}")
@given(case=kernel_cases.CASES)
@fuzz
def test_a_rule_equals_its_reference(rule, is_given, case):
    draw = case.draw._replace(col_start=0)
    index = reference.index(draw, 1)[0]
    check(run, "rule_backward", draw, case.grad, index, rule, is_given)


def test_rules_on_every_instruction_set(isa):
    for shape in ((7, 3), (9, 10), (5, 32), (4, 63), (3, 100), (2, 1500)):
        for masked in ("none", "full"):
            case = kernel_cases.make(shape, torch.float32, "plain", masked, False, "number", "counted", 0, 7)
            for rule in RULES:
                check(run, "rule_backward", case.draw, case.grad, reference.index(case.draw, 1)[0], rule, False)


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


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("dtype", kernel_cases.DTYPES)
def test_bits_are_draws_of_two_categories(dtype, special):
    for key in range(20):
        draw, _ = bit_case(special, dtype, key)
        for samples in (None, 3):
            torch.testing.assert_close(
                cpu.bits(draw, samples), reference.bits(draw, samples), rtol=0, atol=0, equal_nan=True
            )


@pytest.mark.parametrize("stretch", [0.0, 0.1])
@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("dtype", kernel_cases.DTYPES)
def test_relaxed_bits_are_those_of_two_categories(dtype, special, stretch):
    for key in range(3):
        draw, _ = bit_case(special, dtype, key)
        ours, theirs = cpu.soft_bits(draw, stretch), reference.soft_bits(draw, stretch)
        close = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {}
        torch.testing.assert_close(ours, theirs, equal_nan=True, **close)
        b = reference.bits(draw, None)
        assert torch.equal((ours > 0.5)[ours != 0.5], (b == 1)[ours != 0.5])
        assert torch.equal(ours.isnan(), b.isnan())


@pytest.mark.parametrize("is_given", [False, True])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.name}-{rule.draws}")
@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gradient_of_bits_equals_that_of_two_categories(dtype, special, rule, is_given):
    for key in range(5):
        draw, grad = bit_case(special, dtype, key)
        check_bits(run, draw, grad, rule, is_given)


def test_bits_on_every_instruction_set(isa):
    draw, grad = bit_case(False, torch.float32)
    b = cpu.bits(draw, None)
    assert torch.equal(b, reference.bits(draw, None))
    torch.testing.assert_close(cpu.soft_bits(draw, 0.1), reference.soft_bits(draw, 0.1), rtol=1e-5, atol=1e-6)
    for rule in RULES:
        exact = reference.bits_backward(draw, grad, b, rule, False)
        torch.testing.assert_close(cpu.bits_backward(draw, grad, b, rule, False), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("first", [2**32 - 45, 5 * 2**32, -7 * 2**32 - 3, 2**62])
def test_bits_of_ids_with_other_high_halves(isa, first):
    """The high half of the ids is one number in most groups of ids, and two in a group that crosses 2^32."""
    theta, ids = torch.linspace(-2, 2, 100), torch.arange(100) + first
    draw = (theta, 0.8, torch.tensor(5), ids, None, 0)
    b = cpu.bits(draw, 2)
    assert torch.equal(b, reference.bits(draw, 2))
    rule = KernelRule("gumbel_rao", 0.8, 0.0, 5)  # it reads all four words
    exact = reference.bits_backward(draw, theta, b[0], rule, False)
    torch.testing.assert_close(cpu.bits_backward(draw, theta, b[0], rule, False), exact, rtol=1e-4, atol=1e-5)


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
    monkeypatch.setattr(fused, "is_plain", lambda x: False)
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


@pytest.mark.parametrize("rule", [rule for rule in PATHWISE if rule.kernel() is not None], ids=label)
@pytest.mark.parametrize("law", [torch.clone, softdraw.OneHotCategorical, softdraw.Bernoulli])
def test_a_draw_without_a_seed_is_that_of_the_generators(law, rule):
    """And so is its gradient after further draws, whose seeds may have the memory of one that nothing keeps."""
    theta = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(7)
    seed = torch.randint(-(2**63), 2**63 - 1, ())
    torch.manual_seed(7)
    leaves = [theta.clone().requires_grad_() for _ in range(2)]
    y = softdraw.draw(law(leaves[0]), rule)
    softdraw.draw(law(leaves[0]), softdraw.ZGR())
    z = softdraw.draw(law(leaves[1]), rule, seed=seed)
    assert torch.equal(y, z)
    for drawn in (y, z):
        (drawn * theta).sum().backward()
    assert torch.equal(leaves[0].grad, leaves[1].grad)


def test_bits_at_a_tau_below_every_float32():
    """It is brought to the smallest one, as for one-hots: the gradient is 0, or infinite, and no NaN."""
    theta = torch.tensor([-1.0, 2.0], requires_grad=True)
    softdraw.draw(softdraw.Bernoulli(theta), softdraw.StraightThrough(tau=1e-300), seed=0).sum().backward()
    assert torch.equal(theta.grad, torch.zeros(2))
