"""``OneHotCategorical(logits, uniform=e)``: the mixture with the uniform law, against its own formula in float64."""

import math

import pytest
import torch
from torch.distributions import kl_divergence
from torch.testing import assert_close

import softdraw
from softdraw import OneHotCategorical
from tests.methods import HARD, label, one_hot_logits

MASK = torch.tensor([True, False, True, True])
E = 0.07


def by_hand(theta, mask=None, e=E):
    """The probabilities of the mixture, differentiable."""
    allowed = (theta != -math.inf) & (True if mask is None else mask)
    p = theta.masked_fill(~allowed, -math.inf).softmax(-1)
    return torch.where(allowed, (1 - e) * p + e / allowed.sum(-1, keepdim=True), 0)


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
def test_every_number_is_that_of_the_mixture(mask):
    theta = one_hot_logits(5, 4)
    theta[0, 2] = -math.inf
    law, p = OneHotCategorical(theta, mask, uniform=E), by_hand(theta, mask)
    log_p = p.log()
    assert_close(law.probs, p)
    assert_close(law.logits, log_p)
    assert_close(law.log_prob(torch.eye(4, dtype=theta.dtype).view(4, 1, 4)), log_p.T)
    assert_close(law.entropy(), -torch.special.xlogy(p, p).sum(-1))
    assert_close(law.variance, p * (1 - p))
    assert torch.equal(law.mode.argmax(-1), p.argmax(-1))
    other = OneHotCategorical(one_hot_logits(5, 4, seed=3), mask)
    q = by_hand(other.theta, mask, 0.0)
    terms = torch.special.xlogy(p, p) - torch.special.xlogy(p, q)
    assert_close(kl_divergence(law, other), terms.sum(-1))
    back = torch.where(p > 0, torch.special.xlogy(q, q) - q * log_p, torch.where(q > 0, math.inf, 0))
    assert_close(kl_divergence(other, law), back.sum(-1))


def test_kl_to_the_uniform_is_over_what_is_allowed():
    law = OneHotCategorical(one_hot_logits(5, 4), MASK, uniform=E)
    assert_close(kl_divergence(law, law.uniform()), math.log(3) - law.entropy())


def test_without_a_share_nothing_changes():
    theta = one_hot_logits(50, 4)
    a, b = OneHotCategorical(theta), OneHotCategorical(theta, uniform=0)
    for name in ("probs", "logits", "mode", "variance"):
        assert torch.equal(getattr(a, name), getattr(b, name))
    assert torch.equal(a.sample(seed=1), b.sample(seed=1))
    assert b.one_hot_logits()[0] is theta


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_gradients_are_finite_where_the_network_is_certain(dtype):
    """The mixture formed from probabilities has 0 * inf there."""
    top = min(3e4, torch.finfo(dtype).max / 4)
    theta = torch.tensor([[0.0, top, -top], [-top, -top, top]], dtype=dtype, requires_grad=True)
    for value in torch.eye(3):
        law = OneHotCategorical(theta, uniform=0.01)
        (g,) = torch.autograd.grad((law.log_prob(value.to(dtype)) + law.entropy()).sum(), theta)
        assert torch.equal(g, torch.zeros_like(g))  # p is as good as 0 or 1, whose slope is 0
    assert_close(law.log_prob(torch.tensor([1.0, 0, 0], dtype=dtype))[1], torch.tensor(math.log(0.01 / 3), dtype=dtype))


def test_the_gradient_of_log_prob_is_that_of_the_formula():
    theta = one_hot_logits(6, 4).requires_grad_()
    value = torch.eye(4, dtype=theta.dtype)[[0, 2, 3, 2, 0, 3]]
    ours = OneHotCategorical(theta, MASK, uniform=E).log_prob(value)
    exact = (by_hand(theta, MASK).log().nan_to_num(neginf=0) * value).sum(-1)
    w = torch.arange(1.0, 7, dtype=theta.dtype)
    assert_close(torch.autograd.grad(ours @ w, theta), torch.autograd.grad(exact @ w, theta))


@pytest.mark.parametrize("rule", HARD, ids=label)
def test_a_rule_acts_on_the_mixture_and_autograd_goes_on(rule):
    theta = one_hot_logits(6, 4).requires_grad_()
    law, g = OneHotCategorical(theta, MASK, uniform=E), one_hot_logits(6, 4, seed=1)
    y = softdraw.draw(law, rule, seed=3)
    eta = by_hand(theta, MASK).log()
    plain = softdraw.draw(OneHotCategorical(eta), rule, seed=3)
    assert torch.equal(y, plain)
    found, exact = (torch.autograd.grad(x, theta, g, retain_graph=True)[0] for x in (y, plain))
    assert_close(found, exact.nan_to_num())
    assert (found[:, 1] == 0).all()


def test_the_relaxed_rule_too():
    theta = one_hot_logits(6, 4).requires_grad_()
    rule = softdraw.GumbelSoftmax(tau=0.7)
    y = softdraw.draw(OneHotCategorical(theta, uniform=E), rule, seed=3)
    plain = softdraw.draw(by_hand(theta).log(), rule, seed=3)
    assert_close(y, plain)
    assert_close(torch.autograd.grad(y[:, 0].sum(), theta), torch.autograd.grad(plain[:, 0].sum(), theta))


def test_what_the_softmax_never_draws_is_drawn():
    theta = torch.tensor([0.0, 300.0]).expand(20_000, 2)
    drawn = OneHotCategorical(theta, uniform=0.1).sample(seed=0)[:, 0].mean()
    assert abs(drawn - 0.05) < 5 * math.sqrt(0.05 * 0.95 / 20_000)


def test_corners_of_a_batch():
    theta = torch.tensor([[math.inf, 0.0, 0.0], [math.nan, 0.0, 1.0], [-math.inf] * 3, [1.0, 2.0, 3.0]])
    law = OneHotCategorical(theta, uniform=0.3)
    y = law.sample(seed=0)
    assert y[:2].isnan().all()
    assert torch.equal(y[2], torch.zeros(3))
    assert y[3].sum() == 1
    assert_close(law.probs[0], torch.tensor([0.8, 0.1, 0.1]))
    assert law.probs[1].isnan().all()
    assert_close(law.probs[2], torch.zeros(3))
    one = OneHotCategorical(theta[3], torch.tensor([False, True, False]), uniform=0.3)
    assert torch.equal(one.probs, torch.tensor([0.0, 1.0, 0.0]))


def test_parts_expansions_and_probabilities():
    p = torch.tensor([[0.0, 0.25, 0.75], [0.2, 0.3, 0.5]])
    law = OneHotCategorical(probs=p, uniform=0.1)
    assert_close(law.probs, torch.tensor([[0.0, 0.275, 0.725], [0.18 + 0.1 / 3, 0.27 + 0.1 / 3, 0.45 + 0.1 / 3]]))
    assert_close(law[1].probs, law.probs[1])
    assert_close(law.expand((4, 2)).probs[3], law.probs)
    assert torch.equal(law.expand((1, 2)).sample(seed=4)[0], law.sample(seed=4))


def test_bfloat16_draws_as_its_float32_numbers():
    theta = one_hot_logits(200, 4, dtype=torch.bfloat16).requires_grad_()
    law = OneHotCategorical(theta, uniform=E, rule=softdraw.ReinMax())
    y = law.rsample(seed=5)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y.float(), OneHotCategorical(theta.float(), uniform=E).sample(seed=5))
    g = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    wide = theta.detach().float().requires_grad_()
    exact = torch.autograd.grad(
        OneHotCategorical(wide, uniform=E, rule=softdraw.ReinMax()).rsample(seed=5), wide, g.float()
    )
    assert_close(torch.autograd.grad(y, theta, g)[0].float(), exact[0].bfloat16().float())
