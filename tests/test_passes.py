"""The compiled passes equal the formulas, in value and gradient: over shapes, strides, dtypes, masks, odd values."""

from __future__ import annotations

import math

import kernel_cases
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pass_cases import OPERATIONS, compare, plain_rows, rows_of
from torch import Tensor

from softdraw.arguments import compute_dtype
from softdraw.kernels import native, pass_cpu, pass_reference
from softdraw.kernels.pass_reference import Rows
from softdraw.operators import passes

pytestmark = pytest.mark.skipif(native.library() is None, reason="the kernels are not compiled here")
fuzz = settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def run(name: str, *arguments):
    """An operation of the compiled passes."""
    return getattr(pass_cpu, name)(*arguments)


@pytest.mark.parametrize("name", OPERATIONS)
@given(case=kernel_cases.CASES, keep=st.booleans())
@fuzz
def test_every_pass_equals_its_formula(name, case, keep):
    operation = OPERATIONS[name]
    rows = rows_of(case, keep, operation)
    made = run(name, rows, "none", *operation.numbers)
    x = pass_reference.masked(rows.x.to(compute_dtype(rows.x.dtype)), rows.mask)
    known = x.amax(-1).isfinite()
    if rows.mask is not None and name in ("index_nll", "nll"):  # a target that may be forbidden is left to the formula
        t = (
            rows.other
            if name == "nll"
            else torch.zeros_like(x).scatter(-1, rows.category.clamp_min(0).unsqueeze(-1), 1)
        )
        known &= ~((t > 0) & (x == -math.inf)).any(-1)
    if made is None:
        assert not bool((known if rows.keep is None else known | ~rows.keep).all()), "a case that it should know"
        return
    compare(run, name, rows, made, case.grad)


@pytest.mark.parametrize("dtype", kernel_cases.DTYPES)
@pytest.mark.parametrize("cols", [3, 21, 100, 2100])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_instruction_set_gives_the_same(name, cols, dtype):
    best, tested = native.isa(), []
    x = 2 * torch.randn(50, cols, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    rows, numbers = plain_rows(name, x), OPERATIONS[name].numbers

    def run() -> list[Tensor]:
        out, saved = getattr(pass_cpu, name)(rows, "none", *numbers)
        grad = torch.ones_like(out)
        return [
            out,
            *getattr(pass_cpu, f"{name}_backward")(rows, grad, saved, "none", (True, rows.other is not None), *numbers),
        ]

    truth = run()
    for isa in ("x86-64-v2", "x86-64-v3", "x86-64-v4"):
        try:
            native.use_isa(isa)
            other = run()
        except ValueError:
            continue
        finally:
            native.use_isa(best)
        for got, want in zip(other, truth, strict=True):
            if want is not None:
                close = {torch.float64: 1e-13, torch.float32: 5e-7}.get(want.dtype, torch.finfo(want.dtype).eps)
                torch.testing.assert_close(got, want, rtol=close, atol=close * float(want.abs().max()))
        tested.append(isa)
    assert best == "baseline" or best in tested


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", OPERATIONS)
def test_rows_that_no_kernel_knows_get_the_formula(name, value):
    x = torch.tensor([[0.0, 1.0, 2.0], [value] * 3, [1.0, value, 0.0]], requires_grad=True)
    numbers, rows = OPERATIONS[name].numbers, plain_rows(name, x)
    assert getattr(pass_cpu, name)(rows, "none", *numbers) is None
    got, want = getattr(passes, name)(rows, *numbers), getattr(pass_reference, name)(rows, *numbers)
    assert torch.equal(got.nan_to_num(9), want.nan_to_num(9))
    for y in (got, want):
        y.nansum().backward()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_and_their_gradients(name, reduction):
    """By torch's own comparison with differences, the second through the formula; vmap of the backward pass too."""
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()

    def run(x: Tensor) -> Tensor:
        return getattr(passes, name)(plain_rows(name, x), *OPERATIONS[name].numbers, reduction=reduction)

    assert torch.autograd.gradcheck(run, x, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(run, x)


def test_illegal_operands_are_refused():
    """An index out of range, a target that is no distribution or no one-hot, a category that q alone forbids."""
    x, one_hot, distribution = torch.zeros(2, 3), native.CHECKS["OneHot"], native.CHECKS["Distribution"]
    for bad in (-1, 3):
        assert pass_cpu.index_nll(Rows(x, category=torch.tensor([0, bad])), "none") is None
    for check, row, legal in (
        (one_hot, [0.0, 1.0, 0.0], True),
        (one_hot, [1.0, 1.0, 0.0], False),
        (one_hot, [0.5, 0.5, 0.0], False),
        (distribution, [0.5, 0.5, 0.0], True),
        (distribution, [1.5, -0.5, 0.0], False),
        (distribution, [0.5, 0.4, 0.0], False),
        (distribution, [math.nan, 1.0, 0.0], False),
    ):
        made = pass_cpu.nll(Rows(x, other=torch.tensor([[1.0, 0.0, 0.0], row])), "none", 1.0, check, 1e-3)
        assert (made is not None) == legal, row
    forbidden = Rows(x, other=torch.eye(3)[:2], mask=torch.tensor([True, False, True]).expand(2, 3))
    assert pass_cpu.index_nll(forbidden._replace(category=torch.tensor([0, 1])), "none") is None
    assert pass_cpu.nll(forbidden, "none", 1.0, one_hot, 0.0) is None
    assert pass_cpu.kl(Rows(x, other=torch.tensor([0.0, -math.inf, 0.0])), "none") is None
    assert torch.equal(passes.kl(Rows(x, other=torch.tensor([0.0, -math.inf, 0.0]))), torch.full((2,), math.inf))


@pytest.mark.parametrize("name", ["nll", "kl"])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_the_second_operand_has_a_gradient_too(name, reduction):
    """Of its own shape, which may be smaller; against differences, as are its gradients' gradients."""
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    anything = (0.5, native.CHECKS["Anything"], 0.0) if name == "nll" else ()
    for shape in ((3, 5), (5,), (3, 1, 5)):
        other = torch.rand(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).requires_grad_()

        def run(x: Tensor, other: Tensor) -> Tensor:
            return getattr(passes, name)(Rows(x, other=other), *anything, reduction=reduction)

        assert torch.autograd.gradcheck(run, (x, other))
        assert torch.autograd.gradgradcheck(run, (x, other))


@pytest.mark.parametrize("shape", [(7, 12), (3, 100), (2, 1500)])
def test_the_shift_of_an_entropy_makes_the_divergence_from_the_uniform_law(shape):
    x = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(4))
    made = pass_cpu.entropy(Rows(x), "none", 1.0, math.log(shape[-1]))
    assert made is not None
    p = x.double().softmax(-1)
    truth = (p * (p.log() + math.log(shape[-1]))).sum(-1)
    torch.testing.assert_close(made[0].double(), truth, rtol=2e-6, atol=2e-6)
