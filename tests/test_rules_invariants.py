"""What holds for every pathwise rule: zero sum, shift, masks, and a bit as a choice of two."""

import math

import pytest
import torch
from torch.testing import assert_close

import softdraw
from tests.methods import PATHWISE, label, one_hot_logits


def close(actual, expected, tolerance=1e-12):
    assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rule", PATHWISE, ids=label)
def test_gradients_sum_to_zero_and_do_not_see_a_shift(rule):
    logits, g = one_hot_logits(5, 4), one_hot_logits(5, 4, seed=1)
    value = torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 3, 1]), 4).double()
    for x in (None, value):
        grads = []
        for shift in (0.0, 3.7):
            theta = (logits + shift).requires_grad_()
            y = softdraw.draw(softdraw.OneHotCategorical(theta), rule, value=x, seed=1)
            grads.append(torch.autograd.grad(y, theta, g)[0])
        close(grads[0].sum(-1), torch.zeros(5, dtype=torch.float64))
        close(grads[0], grads[1], 1e-9)
        assert grads[0].abs().max() > 0.01


@pytest.mark.parametrize("rule", PATHWISE, ids=label)
def test_masked_is_the_smaller_law(rule):
    """Forbidding trailing categories changes nothing for the others: same samples, same gradients, zero elsewhere."""
    theta, g = one_hot_logits(200, 3), one_hot_logits(200, 5, seed=1)
    small, wide = theta.clone().requires_grad_(), torch.cat([theta, torch.full((200, 2), 9.0)], -1).requires_grad_()
    mask = torch.tensor([True, True, True, False, False])
    value = torch.nn.functional.one_hot(torch.arange(200) % 3, 3).double()
    for sample in (None, value):
        padded = None if sample is None else torch.nn.functional.pad(sample, (0, 2))
        y = softdraw.draw(softdraw.OneHotCategorical(small), rule, value=sample, seed=4)
        z = softdraw.draw(softdraw.OneHotCategorical(wide, mask), rule, value=padded, seed=4)
        (g_small,) = torch.autograd.grad(y, small, g[:, :3])
        arriving = g.clone()
        arriving[:, 3:] = math.inf  # whatever arrives at a forbidden category
        (g_wide,) = torch.autograd.grad(z, wide, arriving)
        close(z[:, :3], y)
        assert not z[:, 3:].any()
        assert not g_wide[:, 3:].any()
        if not isinstance(rule, (softdraw.GumbelRao, softdraw.ReinMaxRao)):  # their further noise follows the width
            close(g_wide[:, :3], g_small)
        close(g_wide.sum(-1), torch.zeros(200, dtype=torch.float64))


@pytest.mark.parametrize("rule", PATHWISE, ids=label)
def test_a_bit_is_a_choice_of_two(rule):
    theta, g = one_hot_logits(40), one_hot_logits(40, seed=1)
    bit, pair = theta.clone().requires_grad_(), torch.stack([torch.zeros(40), theta], -1).requires_grad_()
    b = softdraw.draw(softdraw.Bernoulli(bit), rule, seed=6)
    d = softdraw.draw(softdraw.OneHotCategorical(pair), rule, seed=6)
    close(b, d[:, 1])
    (g_bit,) = torch.autograd.grad(b, bit, g)
    (g_pair,) = torch.autograd.grad(d, pair, torch.stack([torch.zeros_like(g), g], -1))
    close(g_bit, g_pair[:, 1])
    close(g_bit, -g_pair[:, 0])
