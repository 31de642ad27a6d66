"""The Triton passes over the usage of categories equal their formula, as ``usage_cases`` measures it.

In Triton's interpreter (test_triton_process.py runs it), or on a GPU, whose exponentials are approximate: there four
times as much is allowed.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from triton_here import DEVICE, INTERPRETED, body, cut, marks, whole_and_split  # noqa: F401
from usage_cases import ULP, compare, rows_of, wide

from softdraw.arguments import compute_dtype
from softdraw.kernels import pass_reference
from softdraw.kernels.native import USAGE
from softdraw.kernels.pass_reference import Rows

pytestmark = marks
MOST = ULP if INTERPRETED else 4 * ULP
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
each_loss = pytest.mark.parametrize("loss", USAGE)


def _there(x: Any) -> Any:
    return Rows(*map(_there, x)) if isinstance(x, Rows) else x.to(DEVICE) if isinstance(x, torch.Tensor) else x


def _run(name: str) -> Any:
    def run(*given: Any) -> Any:
        made = getattr(body.passes, name)(*map(_there, given))
        return tuple(None if t is None else t.cpu() for t in made)

    return run


PASSES = SimpleNamespace(usage=_run("usage"), usage_backward=_run("usage_backward"))


@whole_and_split
@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("dtype", DTYPES)
@each_loss
def test_one_mean_law(loss, dtype, split, monkeypatch):
    monkeypatch.setattr(body.usage, "_STEPS", 1)  # several programs add up the rows of a group
    for number, shape in enumerate([(4, 41)] if split else [(1, 3), (40, 10), (7, 64)]):
        rows = rows_of(shape, dtype, ("all", "some")[number % 2])
        compare(PASSES, rows, USAGE[loss], False, "mean", MOST)
        if loss == "Balance":
            chosen = torch.rand(shape[-1:], generator=torch.Generator().manual_seed(3)).to(compute_dtype(dtype))
            compare(PASSES, rows._replace(other=chosen), USAGE[loss], False, "sum", MOST)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(3, 9, 10), (2, 3, 2, 33), (4, 1, 7)])
@each_loss
def test_a_mean_law_for_each_group(loss, shape, reduction, monkeypatch):
    monkeypatch.setattr(body.usage, "_STEPS", 1)
    for kept in ("all", "some"):
        compare(PASSES, rows_of(shape, torch.float32, kept), USAGE[loss], True, reduction, MOST)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@each_loss
def test_a_mask_a_group_without_a_row_and_infinite_logits(loss, reduction):
    """Rows that the compiled passes leave to the formula have its values and its gradients here."""
    rows = rows_of((4, 8, 20), torch.float32, "some")
    assert rows.keep is not None
    keep, x = rows.keep.clone(), rows.x.clone()
    keep[1], keep[0] = False, True
    x[0] = torch.randn(8, 20, generator=torch.Generator().manual_seed(4))
    x[0, 1], x[0, 2, 5], x[0, 3, [2, 7]] = -torch.inf, torch.inf, torch.inf
    mask = (torch.arange(20) % 5 > 0).expand(x.shape)
    rows = rows._replace(keep=keep, x=x, mask=mask)
    leaf = x.double().requires_grad_()
    each, total = pass_reference.usage(wide(rows)._replace(x=leaf), USAGE[loss], True)
    true = pass_reference.reduced(each, total != 0, None, reduction)
    out, saved = PASSES.usage(rows, reduction, USAGE[loss], True)
    torch.testing.assert_close(out.double(), true.detach(), rtol=1e-5, atol=1e-6)
    grad = torch.ones_like(out)
    dx, _ = PASSES.usage_backward(rows, grad, saved, reduction, (True, False), USAGE[loss], True)
    want = torch.autograd.grad(true, leaf, grad.double())[0]
    torch.testing.assert_close(dx.double(), want, rtol=1e-4, atol=1e-6)


@each_loss
def test_nan_and_no_rows(loss):
    x = torch.zeros(20, 6)
    x[7, 2] = torch.nan
    out, saved = PASSES.usage(Rows(x), "mean", USAGE[loss], False)
    assert out.isnan()
    assert PASSES.usage_backward(Rows(x), out, saved, "mean", (True, False), USAGE[loss], False)[0].isnan().all()
    for shape, grouped in (((0, 6), False), ((3, 0, 6), True), ((0, 4, 6), True)):
        rows = Rows(torch.zeros(shape))
        out, saved = PASSES.usage(rows, "sum", USAGE[loss], grouped)
        assert float(out) == 0
        assert PASSES.usage_backward(rows, out, saved, "sum", (True, False), USAGE[loss], grouped)[0].shape == shape
