"""The Triton kernels of rules and bits equal the reference, as ``rule_cases`` measures it.

In Triton's interpreter (test_triton_process.py runs it), or on a GPU, whose logarithms and exponentials are
approximate: there four times as much is allowed.
"""

from __future__ import annotations

import itertools
import math

import kernel_cases
import pytest
import torch
from rule_cases import RULES, UNITS, bit_case, check, check_bits
from triton_here import INTERPRETED, cut, marks, run, whole_and_split  # noqa: F401

from softdraw.arguments import Draw, KernelRule
from softdraw.kernels import reference

pytestmark = marks
MOST = UNITS if INTERPRETED else 4 * UNITS
CLOSED = [rule for rule in RULES if not rule.noisy]
NOISY = [rule for rule in RULES if rule.noisy]
each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.name}-{rule.draws}")

# Every value of every property, and no row so wide that the interpreter needs seconds for it: (whole, split) shapes.
SHAPES = [((9, 10), (2, 20)), ((2, 3, 33), (1, 2, 17)), ((7, 3), (3, 25)), ((64,), (21,))]
PROPERTIES = [
    (torch.float32, "plain", "none", "number", "counted", 0),
    (torch.float32, "transposed", "full", "rows", "ids", 3),
    (torch.float64, "spread", "rows", "number", "ids", 4),
    (torch.float64, "expanded", "full", "rows", "counted", 1),
    (torch.bfloat16, "plain", "shared", "tensor", "ids", 2**32 - 5000),
    (torch.float16, "spread", "full", "rows", "counted", 6),
]


def cases(split: bool):
    for number, ((whole, part), special) in enumerate(itertools.product(SHAPES, (False, True))):
        for key in range(1 if split else 2):
            dtype, layout, masked, tau, rows, start = PROPERTIES[(5 * number + key) % len(PROPERTIES)]
            yield kernel_cases.make(
                part if split else whole, dtype, layout, masked, special, tau, rows, start, 10 * number + key
            )


@whole_and_split
@pytest.mark.usefixtures("cut")
@each_rule
def test_a_rule_equals_its_reference(rule, split):
    slow = INTERPRETED and split and rule.noisy
    rule = rule._replace(draws=min(rule.draws, 2)) if slow else rule
    for number, case in enumerate(list(cases(split))[:: 3 if slow else 1]):
        index = reference.index(case.draw, 1)[0]
        check(run, "rule_backward", case.draw, case.grad, index, rule, number % 2 == 1, MOST)


@each_rule
@pytest.mark.parametrize("layout", ["plain", "transposed", "expanded"])
def test_samples_have_streams_and_gradients_of_their_own(layout, rule):
    case = kernel_cases.make((5, 12), torch.float32, layout, "full", False, "rows", "ids", 0, 11)
    index = reference.index(case.draw, 3)
    grad = torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(1))
    got = run("rule_backward", case.draw, grad, index, rule, False)
    exact = reference.rule_backward(case.draw, grad, index, rule, False)
    torch.testing.assert_close(got, exact, rtol=1e-4, atol=1e-5)
    assert run("rule_backward", case.draw, grad[:0], index[:0], rule, False).shape == (0, 5, 12)


def test_a_permuted_batch_and_an_own_seed_for_each_row():
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).permute(2, 1, 0, 3)
    mask, grad = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) > 0.3, x.flip(0).mul(2)
    draw = Draw(x, 0.7, torch.arange(24).view(4, 3, 2, 1), None, mask)
    index = reference.index(draw, 2)
    for rule in RULES:
        exact = reference.rule_backward(draw, torch.stack((grad, -grad)), index, rule, False)
        got = run("rule_backward", draw, torch.stack((grad, -grad)), index, rule, False)
        torch.testing.assert_close(got, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_result_is_the_wide_one_rounded(dtype):
    case = kernel_cases.make((6, 40), dtype, "plain", "full", False, "number", "counted", 0, 3)
    index = reference.index(case.draw, 1)[0]
    for rule in RULES:
        got = run("rule_backward", case.draw, case.grad, index, rule, False)
        assert got.dtype == dtype
        exact = reference.rule_backward(case.draw, case.grad, index, rule, False)
        torch.testing.assert_close(got, exact, rtol=4 * torch.finfo(dtype).eps, atol=4 * torch.finfo(dtype).eps)


@whole_and_split
@pytest.mark.usefixtures("cut")
def test_a_category_without_mass_passes_nothing_on_and_one_that_is_forbidden_gets_nothing(split):
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    x[:, 7] = -200.0
    x[:, 20] = -math.inf
    grad, index = torch.randn(3, 40, generator=torch.Generator().manual_seed(1)), torch.tensor([3, 20, -1])
    spoilt = grad.clone()
    spoilt[:, 7], spoilt[:, 20] = math.inf, math.nan
    for rule in CLOSED:
        exact = reference.rule_backward(Draw(x, 0.5, None), grad, index, rule, True)
        got = run("rule_backward", Draw(x, 0.5, None), spoilt, index, rule, True)
        torch.testing.assert_close(got, exact, rtol=1e-5, atol=1e-6)
        assert not got[:, [7, 20]].any()


def test_noise_of_a_block_takes_its_second_words():
    """A word below 256 (test_triton finds some) in a block of noise that does not start at a multiple of 4."""
    from softdraw import noise

    seed, stream, cols = torch.tensor(11), torch.tensor(0), 2_000_000
    small = ((noise.words(seed, torch.tensor([[row]]), cols, 0, stream) < 256).nonzero() for row in range(12))
    row, column = next((row, int(at[-1, -1])) for row, at in enumerate(small) if len(at) and at[-1, -1] > 100)
    x, grad = torch.zeros(1, 9), torch.arange(9.0).view(1, 9)
    draw = Draw(x, 0.5, seed, torch.tensor([[row]]), None, column - 9 - 5)  # the word is in column 5 of block 1
    rule, index = KernelRule("gumbel_rao", draws=2), reference.index(draw, 1)[0]
    exact = reference.rule_backward(draw, grad, index, rule, True)
    torch.testing.assert_close(run("rule_backward", draw, grad, index, rule, True), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("dtype", kernel_cases.DTYPES)
def test_bits_are_draws_of_two_categories(dtype, special):
    """Equal where the two scores are not as near as rounding on a GPU could exchange."""
    for key, samples in ((0, None), (1, 3)):
        draw, _ = bit_case(special, dtype, key)
        got, exact = run("bits", draw, samples), reference.bits(draw, samples)
        assert got.dtype == dtype
        if INTERPRETED:
            torch.testing.assert_close(got, exact, rtol=0, atol=0, equal_nan=True)
        else:
            assert torch.equal(got.isnan(), exact.isnan())
            assert int((got.nan_to_num() != exact.nan_to_num()).sum()) <= 1


@each_rule
@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gradient_of_bits_equals_that_of_two_categories(dtype, special, rule):
    draw, grad = bit_case(special, dtype, 2)
    for given in (False, True):
        check_bits(run, draw, grad, rule, given, MOST)


@each_rule
def test_bits_of_samples_of_one_tau_and_of_a_seed_for_each(rule):
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).transpose(0, 1)
    mask, grad = (torch.arange(5) != 2).expand(4, 5), torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))
    for tau, seed in ((0.6, torch.arange(20).view(4, 5)), (torch.tensor(0.6), torch.tensor(3))):
        draw = Draw(x, tau, seed, None, mask)
        b = run("bits", draw, 3)
        assert torch.equal(b, reference.bits(draw, 3))
        torch.testing.assert_close(run("soft_bits", draw, 0.1), reference.soft_bits(draw, 0.1), rtol=1e-4, atol=1e-5)
        exact = reference.bits_backward(draw, grad, b, rule, False)
        torch.testing.assert_close(run("bits_backward", draw, grad, b, rule, False), exact, rtol=1e-4, atol=1e-5)
    assert run("bits", Draw(x[:0], 1.0, seed), None).shape == (0, 5)
