"""Gradient rules on orders, against enumeration."""

import math

import pytest
import torch
from torch.distributions import Independent
from torch.testing import assert_close

import softdraw
from tests.methods import label, one_hot_logits

WEIGHTS = one_hot_logits(4, 4, seed=7)
MASK = torch.tensor([True, True, False, True])
RULES = [
    softdraw.Reinforce(baseline=1.5),
    softdraw.LeaveOneOut(3),
    softdraw.Rebar(tau=0.7, eta=0.8),
    softdraw.Relax(control=lambda y: (y[..., :3, :] * WEIGHTS[:3]).sum((-2, -1)).sin(), tau=0.5),
    softdraw.SumAndSample(summed=5, samples=2),
]
LAWS = {
    "orders": lambda x: softdraw.PlackettLuce(x, 3),
    "orders that end": lambda x: softdraw.PlackettLuce(x, 4, MASK),
    "one place": lambda x: softdraw.PlackettLuce(x, 1),
}


def objective(law):
    """Of third order in the matrix of an order, relaxed or not."""
    w = one_hot_logits(4, 4, seed=3)[: law.length]
    return lambda y: ((law.matrix(y) * w).sum((-2, -1)) + 0.5) ** 3


def enumerated(make, theta):
    """E f and its gradient."""
    leaf = theta.clone().requires_grad_()
    law = make(leaf)
    every = law.enumerate_support()
    value = (law.log_prob(every).exp() * objective(law)(every)).sum()
    return value.detach(), torch.autograd.grad(value, leaf)[0]


@pytest.mark.parametrize("make", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("rule", RULES, ids=label)
def test_rules_have_no_bias(make, rule):
    """z-scores of the means over 20,000 estimates against enumeration; P(any |z| > 4.5) < 1e-4 for a rule and law."""
    theta = one_hot_logits(4)
    value, gradient = enumerated(make, theta)
    leaf = theta.expand(20_000, 4).clone().requires_grad_()
    law = make(leaf)
    found = softdraw.expect(objective(law), law, rule, seed=1)
    (g,) = torch.autograd.grad(found.sum(), leaf)
    for each, true in ((found.detach().unsqueeze(-1), value), (g, gradient)):
        z = (each.mean(0) - true).abs() / (each.std(0) / len(each) ** 0.5 + 1e-12)
        assert z.max() < 4.5, z
        assert each.std() > 0.01 or rule == RULES[-1]  # which sums over all orders, where there are few


@pytest.mark.parametrize("make", LAWS.values(), ids=LAWS)
def test_exact_is_the_enumeration(make):
    theta = one_hot_logits(4)
    leaf = theta.clone().requires_grad_()
    law = make(leaf)
    found = softdraw.expect(objective(law), law, softdraw.Exact(chunk=5))
    value, gradient = enumerated(make, theta)
    assert_close(found.detach(), value)
    assert_close(torch.autograd.grad(found, leaf)[0], gradient)
    assert_close(softdraw.expect(objective(law), law, softdraw.SumAndSample(summed=24)), found)


def test_the_controls_take_variance_away_and_can_be_learned():
    theta = torch.zeros(2000, 4, dtype=torch.float64, requires_grad=True)
    law = softdraw.PlackettLuce(theta)
    eta = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def f(y):
        return (law.matrix(y) * WEIGHTS).sum((-2, -1)) + 3

    def spread(rule):
        (g,) = torch.autograd.grad(softdraw.expect(f, law, rule, seed=3).sum(), theta, create_graph=True)
        return g.square().sum(-1).mean()

    plain, controlled = (spread(softdraw.Rebar(tau=0.3, eta=x)) for x in (0.0, eta))
    assert_close(plain, spread(softdraw.Reinforce()))
    (slope,) = torch.autograd.grad(controlled, eta)
    up = spread(softdraw.Rebar(tau=0.3, eta=1.0))
    assert_close(slope, (up - plain).detach(), rtol=1e-9, atol=1e-9)  # it is quadratic in eta
    best = 0.5 - slope / (4 * (up + plain - 2 * controlled)).detach()
    assert spread(softdraw.Rebar(tau=0.3, eta=best.item())) < 0.5 * plain


def test_two_orders_under_one_f():
    theta = one_hot_logits(2, 3).requires_grad_()
    law = softdraw.PlackettLuce(theta)
    both = Independent(law, 1)
    every = law.enumerate_support()
    p = law.log_prob(every).exp()
    value = softdraw.expect(lambda y: (y[..., 0, :] == y[..., 1, :]).double().prod(-1), both, softdraw.Exact())
    assert_close(value, (p[:, 0] * p[:, 1]).sum())
    many = theta.detach().expand(4000, 2, 3).clone().requires_grad_()

    def f(y):
        m = y if y.is_floating_point() else law.matrix(y)
        return (m[..., 0, :, :] * m[..., 1, :, :]).sum((-2, -1)) ** 2

    (exact,) = torch.autograd.grad(softdraw.expect(f, both, softdraw.Exact()), theta)
    for rule in (softdraw.Rebar(), softdraw.LeaveOneOut(2)):
        joint = Independent(softdraw.PlackettLuce(many), 1)
        (g,) = torch.autograd.grad(softdraw.expect(f, joint, rule, seed=0).sum(), many)
        assert ((g.mean(0) - exact).abs() < 4.5 * g.std(0) / 4000**0.5).all()


def test_the_rule_that_expect_takes():
    theta = one_hot_logits(3).requires_grad_()
    f = lambda y: (y[..., 0] == 1).double()  # noqa: E731
    assert_close(softdraw.expect(f, softdraw.PlackettLuce(theta)), theta.softmax(-1)[1])  # 6 states: exact
    law = softdraw.PlackettLuce(one_hot_logits(9).requires_grad_())
    found, expected = softdraw.expect(f, law, seed=2), softdraw.expect(f, law, softdraw.LeaveOneOut(4), seed=2)
    assert_close(torch.autograd.grad(found, law.theta)[0], torch.autograd.grad(expected, law.theta)[0])


def test_diagnose_takes_every_rule():
    law = softdraw.PlackettLuce(one_hot_logits(2, 4), 3)
    report = softdraw.diagnose(objective(law), law, [*RULES, softdraw.Exact()], samples=400)
    assert report.truth.startswith("exact, 24 joint states")
    assert all(rule.unbiased and math.isfinite(rule.variance.value) for rule in report.rules)
    default = softdraw.diagnose(objective(law), law, samples=100)
    assert {type(r.rule).__name__ for r in default.rules} == {"LeaveOneOut", "SumAndSample"}
    assert "no pathwise rule serves PlackettLuce" in str(default)
    many = softdraw.diagnose(lambda y: (y[..., 0] < 3).double(), softdraw.PlackettLuce(one_hot_logits(30)), samples=100)
    assert many.truth.startswith("leave-one-out")
