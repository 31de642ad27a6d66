"""The Triton passes equal the formulas, in value and gradient, as ``pass_cases`` measures it; at infinite logits too.

In Triton's interpreter (test_triton_process.py runs it), or on a GPU, whose logarithms and exponentials are
approximate: there four times as much is allowed.
"""

from __future__ import annotations

import math
from typing import Any

import kernel_cases
import pytest
import torch
from pass_cases import OPERATIONS, ULP, compare, plain_rows, rows_of
from triton_here import DEVICE, INTERPRETED, body, cut, marks, whole_and_split  # noqa: F401

from softdraw.kernels import pass_reference
from softdraw.kernels.pass_reference import Rows

pytestmark = marks
MOST = ULP if INTERPRETED else 4 * ULP
each_operation = pytest.mark.parametrize("name", OPERATIONS)


def there(x: Any) -> Any:
    return Rows(*map(there, x)) if isinstance(x, Rows) else x.to(DEVICE) if isinstance(x, torch.Tensor) else x


def run(name: str, *arguments: Any) -> Any:
    """An operation of the Triton passes on its device; what it makes is back on the CPU."""
    made = getattr(body.passes, name)(*map(there, arguments))
    return tuple(None if t is None else t.cpu() for t in made)


@whole_and_split
@pytest.mark.usefixtures("cut")
@each_operation
@pytest.mark.parametrize("dtype", kernel_cases.DTYPES)
def test_every_pass_equals_its_formula(name, dtype, split):
    shapes = [(2, 40)] if split else [(9, 10), (2, 3, 33), (33, 5)]
    layouts = ["plain", "transposed", "spread"]
    for number, shape in enumerate(shapes):
        for masked in ("none", "full"):
            # A key for which no row is all but certain: in float64 the formula has not the digits for the truth.
            case = kernel_cases.make(shape, dtype, layouts[number], masked, False, "number", "counted", 0, 3 + number)
            rows = rows_of(case, number % 2 == 1, OPERATIONS[name])
            compare(run, name, rows, run(name, rows, "none", *OPERATIONS[name].numbers), case.grad, MOST)


@whole_and_split
@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("name", [*OPERATIONS, "kl_with_slope"])
def test_limits_at_infinity_and_nan(name, split):
    """Rows that the compiled passes leave to the formula have its values and its gradients here."""
    inf, nan = math.inf, math.nan
    x = torch.randn(7, 20, generator=torch.Generator().manual_seed(0))
    x[0, 3], x[1, [3, 17]], x[2], x[3, 5], x[4, :19], x[5, 1:] = inf, inf, -inf, nan, -inf, -inf
    rows = plain_rows("kl" if name == "kl_with_slope" else name, x)
    if rows.other is not None:
        rows = rows._replace(other=rows.other.clone().expand(7, 20).contiguous())
        if name != "nll":
            rows.other[6, 2], rows.other[5, 0] = -inf, -inf
    if name == "index_nll":
        rows = rows._replace(category=torch.tensor([3, 4, 0, 1, 19, 0, 2]))
    numbers = () if name == "kl_with_slope" else OPERATIONS[name].numbers
    leaves = [t.double().requires_grad_() for t in (rows.x, rows.other) if t is not None]
    true = getattr(pass_reference, name)(Rows(*leaves, *rows[len(leaves) :]), *numbers)
    out, saved = run(name, rows, "none", *numbers)
    torch.testing.assert_close(out.double(), true.detach(), rtol=1e-5, atol=1e-6, equal_nan=True)
    grad = torch.linspace(1, 2, 7)
    got = run(f"{name}_backward", rows, grad, saved, "none", (True, True), *numbers)
    want = torch.autograd.grad(true, leaves, grad.double())
    for mine, theirs in zip(got, want, strict=False):
        huge = (theirs.abs() > 1e30) & theirs.isfinite()  # in the place of infinity: each dtype has its own
        torch.testing.assert_close(mine.double()[~huge], theirs[~huge], rtol=1e-5, atol=1e-5, equal_nan=True)
        assert torch.equal(mine[huge].sign().double(), theirs[huge].sign())
        assert mine[huge].isfinite().all()
        assert (mine[huge].abs() > 1e30).all()


@pytest.mark.parametrize("name", ["nll", "kl"])
def test_an_operand_of_fewer_rows_is_read_again(name):
    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))
    leaf = x.clone().requires_grad_()
    numbers = (0.5, 0, 0.0) if name == "nll" else ()
    for shape in ((5,), (4, 5), (3, 1, 5), (1, 4, 5)):
        other = torch.rand(shape, generator=torch.Generator().manual_seed(2)).requires_grad_()
        true = getattr(pass_reference, name)(Rows(leaf, other), *numbers)
        out, saved = run(name, Rows(x, other.detach()), "none", *numbers)
        torch.testing.assert_close(out, true.detach(), rtol=1e-5, atol=1e-5)
        grad = torch.ones(()).expand(3, 4)
        got = run(f"{name}_backward", Rows(x, other.detach()), grad, saved, "none", (True, True), *numbers)
        for mine, theirs in zip(got, torch.autograd.grad(true.sum(), (leaf, other)), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_no_rows_and_a_shift():
    out, saved = run("entropy", Rows(torch.zeros(0, 4)), "none", 1.0, 0.0)
    assert out.shape == (0,)
    assert run("entropy_backward", Rows(torch.zeros(0, 4)), out, saved, "none", (True, False), 1.0, 0.0)[0].shape == (
        0,
        4,
    )
    x = 3 * torch.randn(5, 12, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    p = x.softmax(-1)
    truth = (p * (p.log() + math.log(12))).sum(-1)
    torch.testing.assert_close(run("entropy", Rows(x), "none", 1.0, math.log(12))[0], truth, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kept", [False, True])
def test_reductions(reduction, weighted, kept):
    g = torch.Generator().manual_seed(5)
    x = torch.randn(2, 4, 6, generator=g).requires_grad_()
    rows = Rows(x.detach())
    if kept:
        rows = rows._replace(keep=torch.arange(8).view(2, 4) % 3 > 0)
    if weighted:
        rows = rows._replace(weight=torch.rand(2, 4, generator=g))
    each = pass_reference.entropy(rows._replace(x=x), -1.0, 0.0)
    true = pass_reference.reduced(each, rows.keep, rows.weight, reduction)
    out, saved = run("entropy", rows, reduction, -1.0, 0.0)
    torch.testing.assert_close(out, true.detach(), rtol=1e-6, atol=1e-6)
    grad = torch.randn(true.shape, generator=g)
    dx, _ = run("entropy_backward", rows, grad, saved, reduction, (True, False), -1.0, 0.0)
    torch.testing.assert_close(dx, torch.autograd.grad(true, x, grad)[0], rtol=1e-5, atol=1e-6)
