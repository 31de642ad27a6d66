"""Relaxed top-k beside its recursion in float64: values, gradients, limits."""

import pytest
import torch
from torch.testing import assert_close

import softdraw
from tests.methods import one_hot_logits


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_relaxed_top_k_sums_to_k_and_tends_to_the_top_k(dtype):
    theta = one_hot_logits(50, 9, dtype=dtype)
    law = softdraw.Subset(theta, 4)
    for tau in (2.0, 0.5, 1e-2, 1e-30):
        y = softdraw.draw(law, softdraw.RelaxedTopK(tau), seed=2)
        assert y.dtype == dtype
        assert_close(y.double().sum(-1), torch.full((50,), 4.0).double(), rtol=0, atol=20 * torch.finfo(dtype).eps)
    hard = softdraw.draw(law, softdraw.IMLE(), seed=2)
    assert_close(y.double(), hard.double(), rtol=0, atol=1e-3)  # at the last tau


def test_relaxed_top_k_is_the_published_recursion():
    theta = one_hot_logits(3, 6).requires_grad_()
    tau = torch.tensor([[0.5], [0.8], [1.1]], dtype=torch.float64, requires_grad=True)
    noise = softdraw.gumbel_noise((3, 6), seed=1, dtype=torch.float64)
    a, expected = theta + noise, 0
    for _ in range(3):
        w = (a / tau).softmax(-1)
        expected, a = expected + w, a + torch.log1p(-w)
    found = softdraw.draw(softdraw.Subset(theta, 3), softdraw.RelaxedTopK(tau), seed=1)
    assert_close(found, expected)
    arriving = one_hot_logits(3, 6, seed=9)
    for a, b in zip(*(torch.autograd.grad(y, (theta, tau), arriving) for y in (found, expected)), strict=True):
        assert_close(a, b)
    assert torch.autograd.gradcheck(
        lambda x, t: softdraw.draw(softdraw.Subset(x, 3), softdraw.RelaxedTopK(t), seed=1), (theta, tau)
    )


@pytest.mark.parametrize("gap", [1.0, 60.0, 90.0, 200.0, 1e4, 1e30])
def test_relaxed_top_k_takes_no_item_twice_however_far_it_leads(gap):
    """Float32, whose exp ends at -87, beside the recursion in float64 with log(1 - w) of the leader as logsumexp of the
    others, less that of all."""
    theta = torch.tensor([gap, 0.0, 1.0, -2.0], requires_grad=True)
    y = softdraw.draw(softdraw.Subset(theta, 2), softdraw.RelaxedTopK(0.5), seed=0)
    b = (theta.detach() + softdraw.gumbel_noise((4,), seed=0)).double().requires_grad_()
    first = (b / 0.5).softmax(-1)
    lead = (b[1:] / 0.5).logsumexp(-1) - (b / 0.5).logsumexp(-1)
    expected = first + ((b + torch.cat((lead.view(1), torch.log1p(-first[1:])))) / 0.5).softmax(-1)
    assert_close(y.double(), expected, rtol=0, atol=2e-5)
    (found,), (wanted,) = (torch.autograd.grad(z[2], x) for z, x in ((y, theta), (expected, b)))
    assert_close(found.double(), wanted, rtol=0, atol=2e-5)
