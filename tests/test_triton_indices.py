"""Index draws of the Triton kernels equal the reference: at a temperature, with what the law says, k in order, and the
gradient. In Triton's interpreter (test_triton_process.py runs it), or on a GPU."""

from __future__ import annotations

import math

import kernel_cases
import pytest
import torch
from triton_here import DEVICE, MARGIN, body, cut, marks, run  # noqa: F401

import softdraw
from softdraw import kernels
from softdraw.arguments import compute_dtype, row_ids
from softdraw.kernels import reference
from softdraw.kernels.pass_reference import Rows
from softdraw.operators.indices import said

pytestmark = marks
# shape, layout, mask, temperature (a number, or the tensor of the case), row ids, samples; "split" cuts rows over 16.
CASES = [
    ((5, 10), "plain", "none", 0.3, "counted", 2),
    ((2, 21), "spread", "full", "rows", "ids", 1),
    ((2, 2, 17), "transposed", "rows", 20.0, "counted", 2),
    ((3, 19), "plain", "full", 0.0, "ids", 1),
    ((1, 75), "plain", "none", 1.0, "counted", 1),
]
WAYS = [(number, torch.float32, True) for number in range(len(CASES))]
WAYS += [(0, torch.float32, False), (1, torch.float64, True), (2, torch.bfloat16, False), (4, torch.float64, False)]


def made(number, dtype):
    shape, layout, masked, t, rows, samples = CASES[number]
    case = kernel_cases.make(shape, dtype, layout, masked, number < 4, "rows", rows, 4 * number, number + 1)
    draw = case.draw if t == "rows" else case.draw._replace(tau=t)
    if number == 4:  # of splits that are combined one after the other, the later have the larger logits
        draw = draw._replace(logits=draw.logits.sort(-1).values)
    return draw, samples


def scores_of(draw, samples):
    """Scores with the kernel's own noise, ``(samples, *shape)``."""
    dtype = compute_dtype(draw.logits.dtype)
    ids = row_ids(draw.logits.shape[:-1], draw.logits.device) if draw.rows is None else draw.rows
    cols = draw.logits.shape[-1]
    noise = [run("gumbel", draw.seed, ids, cols, draw.col_start, torch.tensor(s), dtype) for s in range(samples)]
    t = draw.tau if not isinstance(draw.tau, torch.Tensor) else draw.tau.to(dtype)
    s = draw.logits.to(dtype) + t * torch.stack(noise)
    return s if draw.mask is None else s.masked_fill(~draw.mask, -math.inf)


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize(("number", "dtype", "split"), WAYS)
def test_index_draws_equal_the_reference(number, dtype, split, monkeypatch):
    monkeypatch.setattr(body.indices, "_KEYS", 60)  # several rounds of keys
    draw, samples = made(number, dtype)
    s = scores_of(draw, samples)
    top, order = s.sort(dim=-1, descending=True, stable=True)
    bad = (s.isnan() | (s == math.inf)).any(-1, keepdim=True)
    order = torch.where(bad | (top == -math.inf), -1, order)
    assert (order[..., 0] >= 0).any()
    assert near(s, run("tempered", draw, samples).unsqueeze(-1), order[..., :1])
    for k in (0, 3, s.shape[-1] + 2):
        want = torch.nn.functional.pad(order[..., :k], (0, max(0, k - order.shape[-1])), value=-1)
        assert near(s, run("topk", draw, samples, k), want)
    at, chosen, numbers = run("drawn", draw, samples)
    assert torch.equal(at, run("tempered", draw, samples))
    x = reference.draws.numerics.masked(draw.logits.double(), draw.mask)
    want = x.expand(s.shape).gather(-1, at.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    nothing = (x == -math.inf).all(-1).expand_as(at)
    want = want.masked_fill(nothing, -math.inf).masked_fill((at < 0) & ~nothing, math.nan)
    torch.testing.assert_close(chosen, want, rtol=0, atol=0, equal_nan=True)
    true = reference.drawn(draw, samples)[2]
    within = 1e-12 if dtype == torch.float64 else 2e-6
    torch.testing.assert_close(numbers, true, rtol=within, atol=4 * within, equal_nan=True)
    backward(draw, at, numbers, within)


def near(s, got, want):
    """The same columns, or others whose scores are the same but for the rounding of the fused product."""
    differ = (got != want).nonzero()
    for *place, j in differ.tolist():
        row, g, w = s[tuple(place)], got[(*place, j)], want[(*place, j)]
        if min(g, w) < 0 or (row[g] - row[w]).abs() > MARGIN * torch.finfo(s.dtype).eps * row[w].abs().clamp_min(1):
            return False
    return got.shape == want.shape


def backward(draw, at, numbers, within):
    g = torch.Generator().manual_seed(1)
    wide = compute_dtype(draw.logits.dtype)
    grads = [torch.randn(shape, generator=g, dtype=wide) for shape in (at.shape, at.shape[1:])]
    rows = Rows(*(t if t is None else t.to(DEVICE) for t in Rows(draw.logits, mask=draw.mask, category=at)))
    arriving = torch.cat((grads[0], grads[1].unsqueeze(0))).to(DEVICE)
    got, _ = body.passes.drawn_backward(rows, arriving, numbers.to(DEVICE), "none", (True, False))
    leaf = draw.logits.detach().double().requires_grad_()
    (want,) = torch.autograd.grad(said(leaf, draw.mask, at), leaf, [x.double() for x in grads])
    fine, got = at[0] >= 0, got.cpu()
    size = 4 * within * (1 + want[fine].abs().amax(-1, keepdim=True)) + torch.finfo(got.dtype).eps * want[fine].abs()
    assert ((got[fine].double() - want[fine]).abs() <= size).all()
    if draw.mask is not None:
        assert (got[fine][~draw.mask[fine]] == 0).all()


def test_equal_scores_come_by_their_columns_and_zeros_are_equal():
    x = torch.tensor([[1.0, 2.0, 2.0, -0.0, 0.0, -3.0, 2.0], [-1.0, -0.0, 0.0, -2.0, -math.inf, -0.0, -5.0]])
    draw = kernel_cases.make((2, 7), torch.float32, "plain", "none", False, "number", "counted", 0, 1).draw
    draw = draw._replace(logits=x, tau=0.0)
    want = torch.tensor([[1, 2, 6, 0, 3, 4, 5], [1, 2, 5, 0, 3, 6, -1]])
    assert torch.equal(run("topk", draw, 1, 7)[0], want)
    assert torch.equal(run("tempered", draw, 1)[0], want[:, 0])
    assert torch.equal(run("topk", draw._replace(logits=x.double()), 1, 7)[0], want)


def test_draw_index_and_its_gradient_go_through_the_kernels(monkeypatch):
    """Without them, plain torch: the same index, numbers and gradient."""
    x = torch.randn(3, 20, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    t = torch.tensor([0.2, 1.0, 3.0], device=DEVICE)

    def run(which):
        monkeypatch.setattr(kernels, "body_for", lambda _: which)
        leaf = x.clone().requires_grad_()
        made = softdraw.draw_index(leaf, temperature=t, min_p=0.01, seed=5, sample_shape=(2,))
        (grad,) = torch.autograd.grad((made.log_prob + 0.5 * made.entropy).sum(), leaf)
        return *made, grad, softdraw.gumbel_topk(x, 4, temperature=t, seed=5)

    calls = []
    for name in ("drawn", "topk"):
        right = getattr(body, name)
        monkeypatch.setattr(body, name, lambda *a, right=right, name=name: (calls.append(name), right(*a))[1])
    for mine, theirs in zip(run(body), run(reference), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-6, atol=2e-6)
    assert calls == ["drawn", "topk"]
