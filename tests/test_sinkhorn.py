"""Doubly stochastic matrices: against their definition, SciPy's assignments, and the derivatives of the solution."""

import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch.testing import assert_close

import softdraw
from tests.methods import one_hot_logits

INF = math.inf


def unrolled(s, tau, iterations=400):
    """As published: rows and columns in turn, differentiated as they are."""
    x = s / tau
    for _ in range(iterations):
        x = x - x.logsumexp(-1, keepdim=True)
        x = x - x.logsumexp(-2, keepdim=True)
    return x.exp()


def test_it_is_the_fixed_point_and_its_residual_is_true():
    s = one_hot_logits(8, 6, 6)
    for tau in (0.3, 1.0, 10.0):
        plan, residual = softdraw.sinkhorn(s, tau, 1e-10)
        assert_close(plan, unrolled(s, tau), rtol=1e-6, atol=1e-9)
        sums = torch.cat((plan.sum(-1), plan.sum(-2)), -1)
        assert_close((sums - 1).abs().amax(-1), residual, rtol=0, atol=1e-14)
        assert (residual <= 1e-10).all()
    few = softdraw.sinkhorn(s, 0.1, 1e-10, max_iterations=3)
    assert_close(few.plan, unrolled(s, 0.1, 3))
    assert (few.residual > 1e-10).any()
    assert_close((few.plan.sum(-1) - 1).abs().amax(-1), few.residual)
    assert not few.residual.requires_grad


def test_a_matrix_is_the_same_in_every_batch():
    s = torch.cat((0.01 * one_hot_logits(3, 5, 5), 4 * one_hot_logits(3, 5, 5, seed=1)))
    plan, residual = softdraw.sinkhorn(s, 0.5, 1e-5)
    for i in range(6):
        alone = softdraw.sinkhorn(s[i], 0.5, 1e-5)
        assert torch.equal(alone.plan, plan[i])
        assert torch.equal(alone.residual, residual[i])


def test_it_tends_to_the_best_assignment():
    s = one_hot_logits(20, 7, 7)
    plan, _ = softdraw.sinkhorn(s, 5e-3, 1e-3, max_iterations=3000)
    for i in range(20):
        rows, columns = linear_sum_assignment(s[i].numpy(), maximize=True)
        assert plan[i].argmax(-1).tolist() == columns.tolist()
        assert rows.tolist() == list(range(7))


def test_its_gradient_is_that_of_the_solution():
    s = one_hot_logits(2, 4, 4).requires_grad_()
    tau = torch.tensor([0.4, 1.5], dtype=torch.float64).view(2, 1, 1).requires_grad_()

    def plan(x, t):
        return softdraw.sinkhorn(x, t, 1e-14).plan

    assert torch.autograd.gradcheck(plan, (s, tau))
    assert torch.autograd.gradgradcheck(
        plan, (s[:1, :3, :3].detach().requires_grad_(), tau[:1].detach().requires_grad_())
    )
    g = one_hot_logits(2, 4, 4, seed=1)
    (found,) = torch.autograd.grad(plan(s, 0.5), s, g)
    (expected,) = torch.autograd.grad(unrolled(s, 0.5), s, g)
    assert_close(found, expected, rtol=1e-7, atol=1e-9)
    assert_close(found.sum(-1), torch.zeros(2, 4, dtype=torch.float64), rtol=0, atol=1e-10)
    v = one_hot_logits(2, 4, 4, seed=2)
    tangent = torch.func.jvp(lambda x: plan(x, 0.5), (s.detach(),), (v,))[1]
    assert_close((tangent * g).sum(), (found * v).sum())
    mapped = torch.func.vmap(torch.func.grad(lambda x, w: (plan(x, 0.5) * w).sum()))(s.detach(), g)
    assert_close(mapped, found)


@pytest.mark.parametrize("tau", [1e-30, 1e-2, 1e2])
def test_gradients_are_finite_whatever_tau(tau):
    s = one_hot_logits(4, 6, 6).requires_grad_()
    plan = softdraw.sinkhorn(s, tau, max_iterations=200).plan
    (g,) = torch.autograd.grad(plan, s, one_hot_logits(4, 6, 6, seed=1))
    assert plan.isfinite().all()
    assert g.isfinite().all()
    assert tau < 1e-2 or g.abs().max() < 5 / tau  # below that the iterations have not come to their end


def test_masks_corners_and_dtypes():
    s = one_hot_logits(4, 4, 4)
    mask = torch.ones(4, 4, 4, dtype=torch.bool)
    mask[0, 0, 1:], mask[0, 1:, 0], mask[1, 2] = False, False, False
    mask[2] = torch.eye(4, dtype=torch.bool)
    leaf = s.clone().requires_grad_()
    plan, residual = softdraw.sinkhorn(leaf, 0.7, mask=mask, max_iterations=50)
    assert not plan[~mask].any()
    assert_close(plan[0, 1:, 1:], softdraw.sinkhorn(leaf[0, 1:, 1:], 0.7, max_iterations=50).plan)
    assert residual[1] == 1  # a row without anything allowed
    assert_close(plan[2], torch.eye(4, dtype=torch.float64))
    assert_close(softdraw.sinkhorn(s.masked_fill(~mask, -INF), 0.7, max_iterations=50).plan, plan.detach())
    (g,) = torch.autograd.grad(plan, leaf, one_hot_logits(4, 4, 4, seed=1))
    assert g.isfinite().all()
    assert (g[~mask] == 0).all()
    bad = torch.zeros(3, 2, 2)
    bad[0, 0, 0], bad[1, 0, 0] = math.nan, INF
    found = softdraw.sinkhorn(bad, max_iterations=20)
    assert found.plan[:2].isnan().all()
    assert found.residual[:2].isnan().all()
    assert_close(found.plan[2], torch.full((2, 2), 0.5))
    half = softdraw.sinkhorn(s.bfloat16(), 0.7)
    assert (half.plan.dtype, half.residual.dtype) == (torch.bfloat16, torch.float32)
    assert_close(half.plan, softdraw.sinkhorn(s.bfloat16().float(), 0.7).plan.bfloat16())
    assert softdraw.sinkhorn(torch.zeros(0, 3, 3)).residual.shape == (0,)
    assert torch.equal(softdraw.sinkhorn(torch.zeros(1, 1)).plan, torch.ones(1, 1))


def test_draws_are_keyed():
    s = one_hot_logits(5, 3, 3, dtype=torch.float32)
    plan, residual = softdraw.gumbel_sinkhorn(s, 0.5, seed=3, sample_shape=(2,))
    assert plan.shape == (2, 5, 3, 3)
    assert residual.shape == (2, 5)
    noise = softdraw.gumbel_noise((5, 3, 3), seed=3)
    assert_close(plan[0], softdraw.sinkhorn(s + noise, 0.5).plan)
    assert_close(plan[1], softdraw.sinkhorn(s + softdraw.gumbel_noise((5, 3, 3), seed=3, stream=1), 0.5).plan)
    assert_close(softdraw.gumbel_sinkhorn(s, 0.5, seed=3).plan, plan[0])
    assert_close(softdraw.gumbel_sinkhorn(s[2:], 0.5, seed=3, rows=2).plan, plan[0, 2:])
    ids = torch.arange(5).flip(0)
    assert_close(softdraw.gumbel_sinkhorn(s.flip(0), 0.5, seed=3, rows=ids).plan.flip(0), plan[0])
    generator = torch.Generator().manual_seed(1)
    first, second = (softdraw.gumbel_sinkhorn(s, generator=generator).plan for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(softdraw.gumbel_sinkhorn(s, generator=torch.Generator().manual_seed(1)).plan, first)
    with pytest.raises(ValueError, match=r"scores must be square matrices, \(\.\.\., n, n\), got shape \(3, 2\)"):
        softdraw.gumbel_sinkhorn(torch.zeros(3, 2))


def test_hard_draws_have_the_law_of_the_noisy_assignment():
    """At a small tau the plan is the permutation of the largest total of scores and noise."""
    s = one_hot_logits(3, 3, dtype=torch.float32)
    plan, _ = softdraw.gumbel_sinkhorn(s.expand(200, 3, 3), 1e-2, 1e-3, 300, seed=0)
    noisy = s + softdraw.gumbel_noise((200, 3, 3), seed=0)
    best = [linear_sum_assignment(x, maximize=True)[1].tolist() for x in noisy.numpy()]
    agree = [found == expected for found, expected in zip(plan.argmax(-1).tolist(), best, strict=True)]
    assert sum(agree) >= 195  # some totals are nearer to each other than tau


def test_one_graph_under_compile():
    s = one_hot_logits(2, 3, 3)
    leaf = s.clone().requires_grad_()
    compiled = torch.compile(lambda x: softdraw.sinkhorn(x, 0.5), fullgraph=True, backend="aot_eager")
    plan, residual = compiled(leaf)
    expected = softdraw.sinkhorn(s, 0.5)
    assert_close(plan.detach(), expected.plan)
    assert_close(residual, expected.residual)
    g = one_hot_logits(2, 3, 3, seed=1)
    other = s.clone().requires_grad_()
    assert_close(
        torch.autograd.grad(plan, leaf, g)[0], torch.autograd.grad(softdraw.sinkhorn(other, 0.5).plan, other, g)[0]
    )
