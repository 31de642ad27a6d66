"""SoftSort and NeuralSort against their definitions, their limits and their derivatives."""

import math

import pytest
import torch
from torch.testing import assert_close

import softdraw
from tests.methods import one_hot_logits

BOTH = [softdraw.soft_sort, softdraw.neural_sort]
both = pytest.mark.parametrize("relaxed", BOTH, ids=lambda f: f.__name__)
INF = math.inf


def defined(relaxed, s, tau):
    """Row by row, as the papers have them."""
    n, rows = len(s), []
    best = sorted(s.tolist(), reverse=True)
    apart = (s.unsqueeze(-1) - s).abs().sum(-1)
    for i in range(n):
        each = -(best[i] - s).abs() if relaxed is softdraw.soft_sort else (n - 1 - 2 * i) * s - apart
        rows.append((each / tau).softmax(-1))
    return torch.stack(rows)


@both
def test_it_is_the_published_formula(relaxed):
    s = one_hot_logits(3, 6)
    for tau in (0.2, 1.0, 5.0):
        expected = torch.stack([defined(relaxed, row, tau) for row in s])
        assert_close(relaxed(s, tau), expected, rtol=1e-12, atol=1e-14)
        assert_close(relaxed(s.float(), tau).double(), expected, rtol=1e-4, atol=1e-6)


@both
@pytest.mark.parametrize("tau", [1e-38, 1e-2, 1.0, 30.0])
def test_the_largest_of_each_row_is_the_item_in_its_place_for_every_tau(relaxed, tau):
    s = one_hot_logits(20, 12)
    p = relaxed(s, tau)
    assert torch.equal(p.argmax(-1), s.argsort(-1, descending=True))
    assert_close(p.sum(-1), torch.ones(20, 12, dtype=torch.float64))
    if tau < 1e-3:
        assert_close(p, torch.nn.functional.one_hot(s.argsort(-1, descending=True), 12).double())


@both
def test_derivatives(relaxed):
    s = one_hot_logits(2, 4).requires_grad_()
    tau = torch.tensor([[0.4], [1.5]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(relaxed, (s, tau))
    assert torch.autograd.gradgradcheck(relaxed, (s, tau))
    v, w = one_hot_logits(2, 4, seed=1), one_hot_logits(2, 4, 4, seed=2)
    tangent = torch.func.jvp(lambda x: relaxed(x, 0.5), (s.detach(),), (v,))[1]
    (g,) = torch.autograd.grad(relaxed(s, 0.5), s, w)
    assert_close((tangent * w).sum(), (g * v).sum())
    mapped = torch.func.vmap(lambda x: relaxed(x, 0.5))(s.detach())
    assert_close(mapped, relaxed(s, 0.5).detach())
    assert_close(g.sum(-1), torch.zeros(2, dtype=torch.float64))  # a common shift changes nothing


@both
def test_masks_corners_and_dtypes(relaxed):
    s = one_hot_logits(3, 5).requires_grad_()
    mask = torch.tensor([[True, False, True, True, False], [True] * 5, [False] * 5])
    p = relaxed(s, 0.5, mask)
    assert_close(p[0][:3][:, [0, 2, 3]], relaxed(s[0, [0, 2, 3]], 0.5))
    assert not p[0, :, [1, 4]].any()
    assert not p[0, 3:].any()
    assert not p[2].any()
    assert_close(p[1], relaxed(s[1], 0.5))
    assert_close(relaxed(s.masked_fill(~mask, -INF), 0.5), p)
    (g,) = torch.autograd.grad(p, s, one_hot_logits(3, 5, 5, seed=1))
    assert g.isfinite().all()
    assert (g[~mask] == 0).all()
    bad = relaxed(torch.tensor([[0.0, math.nan], [INF, 1.0], [0.0, 1.0]]))
    assert bad[:2].isnan().all()
    assert bad[2].isfinite().all()
    half = relaxed(s.detach().bfloat16(), 0.5)
    assert half.dtype == torch.bfloat16
    assert_close(half, relaxed(s.detach().bfloat16().float(), 0.5).bfloat16())
    assert relaxed(torch.zeros(0, 4)).shape == (0, 4, 4)
    assert torch.equal(relaxed(torch.zeros(1)), torch.ones(1, 1))
    for wrong in (torch.zeros(()), torch.zeros(3, 0)):
        with pytest.raises(ValueError, match=r"scores must have the shape \(\.\.\., n\)"):
            relaxed(wrong)


def test_both_under_compile():
    def every(x):
        return softdraw.soft_sort(x, 0.5) @ x + softdraw.neural_sort(x, 0.5) @ x

    x = one_hot_logits(6, dtype=torch.float32)
    assert_close(torch.compile(every, fullgraph=True, backend="aot_eager")(x), every(x))


def test_a_tau_that_does_not_fit_is_told_which_shape_does():
    x = torch.zeros(3, 4)
    with pytest.raises(
        ValueError, match=r"tau of shape \(4,\) does not fit scores of shape \(3, 4\): .* row.*\(3, 1\)"
    ):
        softdraw.soft_sort(x, torch.ones(4))
    with pytest.raises(
        ValueError, match=r"tau of shape \(3, 1\) does not fit scores of shape \(3, 3\): .* matrix.*\(1, 1\)"
    ):
        softdraw.sinkhorn(x[:, :3], torch.ones(3, 1))
