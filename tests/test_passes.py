"""The compiled passes equal the formulas, in value and gradient: over shapes, strides, dtypes, masks, special values.

How "within 4 ulp" is measured. The truth is the formula in float64 of the same logits. A result is a sum of terms, and
its error is that of the largest: so the unit is the last place, in the dtype of the computation, of the sum of the
terms' magnitudes. In it a probability has the weight p (1 + |log p|), because the rounding of log p, as torch rounds it
too, moves p by so much. A gradient of 16 bits is rounded once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

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
    """What a pass takes beside logits, and how large the terms are that its value and its gradients sum."""

    numbers: tuple
    sizes: Callable[[Rows], tuple[Tensor, ...]]
    complete: Callable[[Rows, torch.Generator], Rows] = lambda rows, _: rows


def weight(log_p: Tensor) -> tuple[Tensor, Tensor]:
    """The size of p, that of its rounding included, and |log p|, 0 where p is 0."""
    size = log_p.masked_fill(log_p == -math.inf, 0).abs()
    return log_p.exp() * (1 + size), size


def entropy_sizes(rows: Rows) -> tuple[Tensor, ...]:
    p, size = weight(pass_reference.log_probs_of(rows))
    value = (p * size).sum(-1)
    return value, p * (1 + size + value.unsqueeze(-1))


def index_sizes(rows: Rows) -> tuple[Tensor, ...]:
    p, size = weight(pass_reference.log_probs_of(rows))
    category = rows.category.masked_fill(~(rows.category >= 0), 0).unsqueeze(-1)
    return 1 + size.gather(-1, category).squeeze(-1), p + torch.zeros_like(p).scatter(-1, category, 1)


def nll_sizes(rows: Rows) -> tuple[Tensor, ...]:
    p, size = weight(pass_reference.log_probs_of(rows))
    t = rows.other
    return (t * (1 + size)).sum(-1), p * t.sum(-1, keepdim=True) + t, 1 + size


def kl_sizes(rows: Rows) -> tuple[Tensor, ...]:
    p, p_size = weight(pass_reference.log_probs_of(rows))
    q, q_size = weight(pass_reference.log_probs_of(Rows(rows.other, mask=rows.other_mask)))
    value = (p * (1 + p_size + q_size)).sum(-1)
    return value, p * (1 + p_size + q_size + value.unsqueeze(-1)), p + q


def with_category(rows: Rows, g: torch.Generator) -> Rows:
    """A category for each row that its mask allows; one out of range where the row does not count."""
    category = pass_reference.masked(torch.rand(rows.x.shape, generator=g), rows.mask).argmax(-1)
    return rows._replace(category=category if rows.keep is None else category.masked_fill(~rows.keep, -7))


def with_target(rows: Rows, g: torch.Generator) -> Rows:
    """A distribution for each row, with zeros where the mask forbids."""
    t = pass_reference.masked(torch.randn(rows.x.shape, generator=g, dtype=torch.float64), rows.mask).softmax(-1)
    return rows._replace(other=t.to(rows.x.dtype))


def with_law(rows: Rows, g: torch.Generator) -> Rows:
    """Logits of a second law: of one law for all, or of a law for each row with the mask of the first."""
    shape = rows.x.shape
    if int(torch.randint(2, (), generator=g)):
        return rows._replace(other=torch.randn(shape[-1:], generator=g).to(compute_dtype(rows.x.dtype)))
    return rows._replace(other=3 * torch.randn(shape, generator=g).to(rows.x.dtype), other_mask=rows.mask)


OPERATIONS = {
    "entropy": Operation((-1.0, 0.0), entropy_sizes),
    "index_nll": Operation((), index_sizes, with_category),
    "nll": Operation((0.5, native.CHECKS["Distribution"], 0.01), nll_sizes, with_target),
    "kl": Operation((), kl_sizes, with_law),
}


def rows_of(case: kernel_cases.Case, keep: bool, operation: Operation) -> Rows:
    kept = torch.arange(math.prod(case.logits.shape[:-1])).view(case.logits.shape[:-1]) % 3 > 0 if keep else None
    g = torch.Generator().manual_seed(int(case.seed))
    return operation.complete(Rows(case.logits, mask=case.mask, keep=kept), g)


def plain_rows(name: str, x: Tensor) -> Rows:
    """These logits, and what else the operation reads."""
    return OPERATIONS[name].complete(Rows(x), torch.Generator().manual_seed(2))


def wide(rows: Rows) -> Rows:
    """The same operands in float64, for the truth."""
    operands: list[Any] = [t.double() if t is not None and t.is_floating_point() else t for t in rows]
    return Rows(*operands)


def leaves_of(rows: Rows) -> list[Tensor]:
    """The operands that may have a gradient."""
    return [rows.x] if rows.other is None else [rows.x, rows.other]


def assert_within(got: Tensor, true: Tensor, size: Tensor) -> None:
    """``ULP`` units of the compute dtype, in float64 twice as many, and the rounding of a result of 16 bits."""
    compute, true = compute_dtype(got.dtype), true.to(got.dtype).double()  # inf where the dtype ends
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
    operation = OPERATIONS[name]
    rows = rows_of(case, keep, operation)
    truth = wide(rows)
    made = getattr(pass_cpu, name)(rows, "none", *operation.numbers)
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
    out, saved = made
    kept = torch.ones_like(out, dtype=torch.bool) if rows.keep is None else rows.keep
    assert not bool(out[~kept].any())
    leaves = [t.detach().requires_grad_() for t in leaves_of(truth)]
    true = getattr(pass_reference, name)(Rows(*leaves, *truth[len(leaves) :]), *operation.numbers)
    value_size, *sizes = operation.sizes(truth)
    assert_within(out[kept], true.detach()[kept], value_size[kept])
    grad = case.grad.sum(-1).to(out.dtype).masked_fill(~kept, 0)  # reductions give rows that do not count nothing
    wanted = (True, len(leaves) > 1)
    got = getattr(pass_cpu, f"{name}_backward")(rows, grad, saved, "none", wanted, *operation.numbers)
    want = torch.autograd.grad(true, leaves, grad.double())
    for leaf, dx, true_dx, size in zip(leaves_of(rows), got, want, sizes, strict=False):
        assert dx.dtype == leaf.dtype
        assert dx.shape == leaf.shape
        bound = grad.double().abs().unsqueeze(-1) * size
        if leaf.shape != size.shape:  # the sum over the rows that share it is one more rounding for each of them
            bound = bound.sum_to_size(leaf.shape) * (1 + math.log2(1 + grad.numel()))
        assert_within(dx, true_dx, bound)


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
