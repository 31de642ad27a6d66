"""The deterministic relaxation of top-k against its definition, a general solver, and its derivatives."""

import math

import pytest
import torch
from torch.testing import assert_close

import softdraw
from tests.methods import one_hot_logits

INF = math.inf


def bisected(theta, k, tau):
    """The solution by plain bisection in float64."""
    y = theta.double() / tau
    low, high = -y.amax(-1, keepdim=True) - 800, -y.amin(-1, keepdim=True) + 800
    for _ in range(200):
        c = (low + high) / 2
        above = torch.sigmoid(y + c).sum(-1, keepdim=True) > k
        low, high = torch.where(above, low, c), torch.where(above, c, high)
    return torch.sigmoid(y + c)


@pytest.mark.parametrize("tau", [1e-30, 1e-2, 0.3, 1.0, 50.0])
@pytest.mark.parametrize("size", [(1, 1), (2, 1), (7, 3), (40, 39), (300, 20)], ids=str)
def test_it_is_the_solution_and_sums_to_k(size, tau):
    n, k = size
    theta = 3 * one_hot_logits(6, n)
    p = softdraw.soft_topk(theta, k, tau)
    assert_close(p.sum(-1), torch.full((6,), float(k), dtype=torch.float64), rtol=0, atol=1e-10)
    exact = bisected(theta, k, tau) if tau > 1e-10 else softdraw.Subset(theta, k).mode
    assert_close(p, exact, rtol=0, atol=1e-9)
    narrow = softdraw.soft_topk(theta.float(), k, tau)
    assert_close(narrow.sum(-1), torch.full((6,), float(k)), rtol=1e-6, atol=0)
    assert ((narrow >= 0) & (narrow <= 1)).all()


def test_it_tends_to_the_mode_and_is_largest_among_its_neighbours():
    theta = one_hot_logits(5, 8)
    assert_close(softdraw.soft_topk(theta, 3, 1e-4), softdraw.Subset(theta, 3).mode)
    p = softdraw.soft_topk(theta, 3, 0.7)

    def value(q):
        return (theta * q).sum(-1) - 0.7 * (torch.special.xlogy(q, q) + torch.special.xlogy(1 - q, 1 - q)).sum(-1)

    for seed in range(20):
        step = one_hot_logits(5, 8, seed=seed)
        near = p + 1e-3 * (step - step.mean(-1, keepdim=True)) * (p * (1 - p)).amin()
        assert (value(near) < value(p)).all()


def test_its_gradients_are_those_of_the_solution():
    theta = one_hot_logits(3, 6).requires_grad_()
    tau = torch.tensor([[0.4], [1.0], [2.0]], dtype=torch.float64, requires_grad=True)
    for k in (2, torch.tensor([1, 3, 5])):
        assert torch.autograd.gradcheck(lambda x, t, k=k: softdraw.soft_topk(x, k, t), (theta, tau))
        assert torch.autograd.gradgradcheck(lambda x, t, k=k: softdraw.soft_topk(x, k, t), (theta, tau))
    p, g = softdraw.soft_topk(theta, 2, 0.7), one_hot_logits(3, 6, seed=1)
    (found,) = torch.autograd.grad(p, theta, g)
    d = (p * (1 - p) / 0.7).detach()
    assert_close(found, d * (g - (d * g).sum(-1, keepdim=True) / d.sum(-1, keepdim=True)))
    sharp = softdraw.soft_topk(theta, 2, 1e-30)
    assert torch.equal(torch.autograd.grad(sharp, theta, g)[0], torch.zeros(3, 6, dtype=torch.float64))


def test_masks_corners_and_dtypes():
    theta = torch.tensor([[0.0, 1.0, 2.0, -1.0]] * 4, requires_grad=True)
    mask = torch.tensor(
        [[True] * 4, [True, False, True, True], [True, False, True, False], [False, True, False, False]]
    )
    p = softdraw.soft_topk(theta, 2, 0.5, mask)
    assert_close(p[1, [0, 2, 3]], softdraw.soft_topk(torch.tensor([0.0, 2.0, -1.0]), 2, 0.5))
    assert_close(p[2], torch.tensor([1.0, 0.0, 1.0, 0.0]))
    assert torch.equal(p[3], torch.zeros(4))
    (g,) = torch.autograd.grad(p, theta, torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))
    assert g.isfinite().all()
    assert (g[~mask] == 0).all()
    corners = torch.tensor(
        [[INF, 0.0, 1.0, -INF], [INF, INF, INF, 0.0], [math.nan, 0.0, 1.0, 2.0], [1e4, 0.0, 0.0, -1e4]]
    )
    p = softdraw.soft_topk(corners, 2)
    assert_close(p[0], torch.cat((torch.ones(1), softdraw.soft_topk(torch.tensor([0.0, 1.0, -INF]), 1))))
    assert_close(p[1], torch.tensor([2 / 3, 2 / 3, 2 / 3, 0.0]))
    assert p[2].isnan().all()
    assert_close(p[3], torch.tensor([1.0, 0.5, 0.5, 0.0]))
    nothing = torch.tensor([0, 0, 2, 0])
    for wide in (theta, theta.double()):
        assert torch.equal(softdraw.soft_topk(wide, 0).detach(), torch.zeros(4, 4, dtype=wide.dtype))
        assert torch.equal(softdraw.soft_topk(wide, nothing)[nothing == 0].detach(), wide.new_zeros(3, 4))
    assert softdraw.soft_topk(corners, torch.zeros(4, dtype=torch.int64))[2].isnan().all()
    assert_close(softdraw.soft_topk(theta, 4).detach(), torch.ones(4, 4))
    half = softdraw.soft_topk(theta.detach().bfloat16(), 2, 0.5)
    assert half.dtype == torch.bfloat16
    assert_close(half, softdraw.soft_topk(theta.detach(), 2, 0.5).bfloat16())
    assert softdraw.soft_topk(torch.zeros(0, 4), 2).shape == (0, 4)


def test_under_transforms_and_compile():
    theta = one_hot_logits(4, 6)
    expected = softdraw.soft_topk(theta, 2, 0.5)
    assert_close(torch.func.vmap(lambda x: softdraw.soft_topk(x, 2, 0.5))(theta), expected)
    g = one_hot_logits(4, 6, seed=1)
    tangent = torch.func.jvp(lambda x: softdraw.soft_topk(x, 2, 0.5), (theta,), (g,))[1]
    leaf = theta.clone().requires_grad_()
    assert_close(tangent, torch.autograd.grad(softdraw.soft_topk(leaf, 2, 0.5), leaf, g)[0])  # it is symmetric
    compiled = torch.compile(lambda x: softdraw.soft_topk(x, 2, 0.5), fullgraph=True, backend="aot_eager")
    y = compiled(leaf)
    assert_close(y, expected)
    assert_close(torch.autograd.grad(y, leaf, g)[0], tangent)
