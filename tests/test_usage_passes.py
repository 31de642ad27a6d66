"""The compiled passes over the usage of categories, and the reduction within passes, equal the formulas in float64.

``usage_cases`` says how "within 4 ulp" is measured.
"""

from __future__ import annotations

import pytest
import torch
from pass_cases import OPERATIONS, plain_rows
from torch import Tensor
from usage_cases import compare, rows_of, wide

from softdraw.arguments import compute_dtype
from softdraw.kernels import native, pass_cpu, pass_reference
from softdraw.kernels.native import USAGE
from softdraw.kernels.pass_reference import Rows
from softdraw.operators import passes

pytestmark = pytest.mark.skipif(native.library() is None, reason="the kernels are not compiled here")
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SETS = ["x86-64-v2", "x86-64-v3", "x86-64-v4", "baseline"]
SHAPES = [(1, 3), (5, 1), (37, 10), (33, 64), (37, 65), (3, 1500), (900, 12)]


@pytest.fixture(params=SETS)
def isa(request):
    best = native.isa()
    try:
        native.use_isa(request.param)
    except ValueError:
        pytest.skip(f"no {request.param} here")
    yield request.param
    native.use_isa(best)


@pytest.mark.parametrize("kept", ["all", "some"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", USAGE)
def test_one_mean_law(loss, dtype, shape, kept, isa):
    rows = rows_of(shape, dtype, kept)
    compare(pass_cpu, rows, USAGE[loss], False, "mean")
    if loss == "Balance":
        chosen = torch.rand(shape[-1:], generator=torch.Generator().manual_seed(3)).to(compute_dtype(dtype))
        compare(pass_cpu, rows._replace(other=chosen), USAGE[loss], False, "sum")


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("kept", ["all", "some"])
@pytest.mark.parametrize("shape", [(3, 21, 10), (2, 5, 4, 70), (4, 1, 7)])
@pytest.mark.parametrize("loss", USAGE)
def test_a_mean_law_for_each_group(loss, shape, kept, reduction):
    compare(pass_cpu, rows_of(shape, torch.float32, kept), USAGE[loss], True, reduction)


def test_a_group_without_a_row_adds_nothing():
    rows = rows_of((3, 8, 10), torch.float32, "some")
    assert rows.keep is not None
    keep = rows.keep.clone()
    keep[1] = False
    rows = rows._replace(keep=keep)
    for loss in USAGE.values():
        for reduction in ("mean", "sum", "none"):
            x = rows.x.clone().requires_grad_()
            y = passes.usage(rows._replace(x=x), loss, True, reduction=reduction)
            y.sum().backward()
            assert x.grad is not None
            assert not x.grad[1].any()
            each, total = pass_reference.usage(wide(rows), loss, True)
            truth = pass_reference.reduced(each, total != 0, None, reduction)
            torch.testing.assert_close(y.detach().double(), truth, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("cols", [3, 100])
def test_rows_that_no_kernel_knows_get_the_formula(cols, value):
    x = torch.zeros(20, cols)
    x[7] = value
    for loss in USAGE.values():
        assert pass_cpu.usage(Rows(x), "mean", loss, False) is None
        got, want = passes.usage(Rows(x), loss, False, reduction="mean"), pass_reference.usage(Rows(x), loss, False)[0]
        assert torch.equal(got.nan_to_num(9), want.nan_to_num(9))


@pytest.mark.parametrize("loss", USAGE)
def test_gradients_and_their_gradients(loss):
    x = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    w = torch.tensor([[1.0, 2.0], [0.5, 1.0], [0.0, 3.0]], dtype=torch.float64)

    def run(x: Tensor) -> Tensor:
        return passes.usage(Rows(x, weight=w), USAGE[loss], True, reduction="none")

    assert torch.autograd.gradcheck(run, x, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(run, x)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("kept", ["keep", "weight", "both", "nothing"])
@pytest.mark.parametrize("cols", [10, 100])
@pytest.mark.parametrize("name", OPERATIONS)
def test_weights_and_reductions_within_a_pass(name, cols, kept, reduction):
    """Against the formula, value and gradient; a weight of 0 drops a row whose number is infinite."""
    g = torch.Generator().manual_seed(5)
    rows = plain_rows(name, 2 * torch.randn(37, cols, generator=g))
    weight = torch.rand(37, generator=g)
    weight[3] = 0
    if name == "index_nll":
        x = rows.x.clone()
        x[3, rows.category[3]] = -torch.inf
        rows = rows._replace(x=x if kept in ("weight", "both") else rows.x)
    keep = torch.rand(37, generator=g) < 0.6
    rows = rows._replace(
        keep=keep if kept in ("keep", "both") else torch.zeros_like(keep) if kept == "nothing" else None,
        weight=weight if kept in ("weight", "both") else None,
    )
    x, y = rows.x.clone().requires_grad_(), rows.x.double().requires_grad_()
    got = getattr(passes, name)(rows._replace(x=x), *OPERATIONS[name].numbers, reduction=reduction)
    truth = wide(rows)._replace(x=y)
    each = getattr(pass_reference, name)(truth, *OPERATIONS[name].numbers)
    want = pass_reference.reduced(each, truth.keep, truth.weight, reduction)
    torch.testing.assert_close(got.double(), want, rtol=2e-6, atol=2e-6)
    up = torch.linspace(1, 2, max(want.numel(), 1)).view(want.shape)
    (dx,), (dy,) = torch.autograd.grad(got, x, up), torch.autograd.grad(want, y, up.double())
    torch.testing.assert_close(dx.double(), dy, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("shape", [(5000, 12), (700, 300)])
@pytest.mark.parametrize("name", ["usage", *OPERATIONS])
def test_the_number_of_threads_changes_nothing(name, shape):
    x, before = torch.randn(shape, generator=torch.Generator().manual_seed(6)), torch.get_num_threads()
    numbers = (USAGE["Diversity"], False) if name == "usage" else OPERATIONS[name].numbers
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            rows = Rows(x) if name == "usage" else plain_rows(name, x)
            leaf = x.clone().requires_grad_()
            y = getattr(passes, name)(rows._replace(x=leaf), *numbers, reduction="mean")
            results.append((y.detach(), *torch.autograd.grad(y, leaf)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
