"""The compiled passes equal the formulas, in value and gradient: over shapes, strides, dtypes, masks, special values.

How "within 4 ulp" is measured. The truth is the formula in float64 of the same logits. A result is a sum of terms, and
its error is that of the largest: so the unit is the last place, in the dtype of the computation, of the sum of the
terms' magnitudes. In it a probability has the weight p (1 + |log p|), because the rounding of log p, as torch rounds it
too, moves p by so much. A gradient of 16 bits is rounded once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import kernel_cases
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from softdraw.arguments import compute_dtype
from softdraw.kernels import native, pass_cpu, pass_reference
from softdraw.kernels.pass_reference import Rows
from softdraw.operators import passes

pytestmark = pytest.mark.skipif(native.library() is None, reason="the kernels are not compiled here")
ULP = 4
fuzz = settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


class Operation(NamedTuple):
    """What a pass takes beside logits, and how large the terms are that its value and its gradient sum."""

    numbers: tuple
    sizes: Callable[[Rows], tuple[Tensor, Tensor]]


def weight(log_p: Tensor) -> tuple[Tensor, Tensor]:
    """The size of p, that of its rounding included, and |log p|, 0 where p is 0."""
    size = log_p.masked_fill(log_p == -math.inf, 0).abs()
    return log_p.exp() * (1 + size), size


def entropy_sizes(rows: Rows) -> tuple[Tensor, Tensor]:
    p, size = weight(pass_reference.log_probs_of(rows))
    value = (p * size).sum(-1)
    return value, p * (1 + size + value.unsqueeze(-1))


OPERATIONS = {"entropy": Operation((-1.0, 0.0), entropy_sizes)}


def rows_of(case: kernel_cases.Case, keep: bool) -> Rows:
    kept = torch.arange(math.prod(case.logits.shape[:-1])).view(case.logits.shape[:-1]) % 3 > 0 if keep else None
    return Rows(case.logits, mask=case.mask, keep=kept)


def wide(rows: Rows) -> Rows:
    """The same operands in float64, for the truth."""
    return Rows(*(t.double() if t is not None and t.is_floating_point() else t for t in rows))


def assert_within(got: Tensor, true: Tensor, size: Tensor) -> None:
    """``ULP`` units of the compute dtype, in float64 twice as many, and the rounding of a result of 16 bits."""
    compute = compute_dtype(got.dtype)
    allowed = ULP * (1 + (compute == torch.float64)) * torch.finfo(compute).eps * size + torch.finfo(got.dtype).tiny
    if got.dtype != compute:
        allowed = allowed + torch.finfo(got.dtype).eps * true.abs()
    assert torch.equal(got.isnan(), true.isnan())
    different = (got.double() - true).nan_to_num(0).abs()
    assert bool((different <= allowed.nan_to_num(0)).all()), (different / allowed).max()


@pytest.mark.parametrize("name", OPERATIONS)
@given(case=kernel_cases.CASES, keep=st.booleans())
@fuzz
def test_every_pass_equals_its_formula(name, case, keep):
    operation, rows = OPERATIONS[name], rows_of(case, keep)
    truth = wide(rows)
    made = getattr(pass_cpu, name)(rows, *operation.numbers)
    x = pass_reference.masked(rows.x.to(compute_dtype(rows.x.dtype)), rows.mask)
    known = x.amax(-1).isfinite()
    if made is None:
        assert not bool((known if rows.keep is None else known | ~rows.keep).all()), "a case that it should know"
        return
    out, saved = made
    kept = torch.ones_like(out, dtype=torch.bool) if rows.keep is None else rows.keep
    assert not bool(out[~kept].any())
    leaf = truth.x.detach().requires_grad_()
    true = getattr(pass_reference, name)(truth._replace(x=leaf), *operation.numbers)
    value_size, size = operation.sizes(truth)
    assert_within(out[kept], true.detach()[kept], value_size[kept])
    grad = case.grad.sum(-1).to(out.dtype)
    (dx, _) = getattr(pass_cpu, f"{name}_backward")(rows, grad, saved, 0.5, (True, False), *operation.numbers)
    (true_dx,) = torch.autograd.grad(true, leaf, 0.5 * grad.double())
    assert dx.dtype == rows.x.dtype
    assert dx.shape == rows.x.shape
    assert_within(dx, true_dx * kept.unsqueeze(-1), 0.5 * grad.double().abs().unsqueeze(-1) * size)


@pytest.mark.parametrize("dtype", kernel_cases.DTYPES)
@pytest.mark.parametrize("cols", [3, 21, 100, 2100])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_instruction_set_gives_the_same(name, cols, dtype):
    best, tested = native.isa(), []
    x = 2 * torch.randn(50, cols, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    rows, numbers = Rows(x), OPERATIONS[name].numbers

    def run() -> list[Tensor]:
        out, saved = getattr(pass_cpu, name)(rows, *numbers)
        grad = torch.ones_like(out)
        return [out, *getattr(pass_cpu, f"{name}_backward")(rows, grad, saved, 1.0, (True, False), *numbers)]

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
    numbers = OPERATIONS[name].numbers
    assert getattr(pass_cpu, name)(Rows(x), *numbers) is None
    got, want = getattr(passes, name)(Rows(x), *numbers), getattr(pass_reference, name)(Rows(x), *numbers)
    assert torch.equal(got.nan_to_num(9), want.nan_to_num(9))
    for y in (got, want):
        y.nansum().backward()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_and_their_gradients(name, reduction):
    """By torch's own comparison with differences, the second through the formula; vmap of the backward pass too."""
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()

    def run(x: Tensor) -> Tensor:
        return getattr(passes, name)(Rows(x), *OPERATIONS[name].numbers, reduction=reduction)

    assert torch.autograd.gradcheck(run, x, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(run, x)
