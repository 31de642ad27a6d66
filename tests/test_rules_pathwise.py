"""The mathematics of the pathwise rules: float64, fixed logits, every sample enumerated."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.testing import assert_close

import softdraw
from tests.methods import PATHWISE, enumerated, label, one_hot_logits

ROOT = Path(__file__).parent.parent
LOGITS = one_hot_logits(4)
A = one_hot_logits(4, 4, seed=1)
B = one_hot_logits(4, seed=2)


def close(actual, expected, tolerance=1e-12):
    assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def jacobian(p):
    return torch.diag(p) - torch.outer(p, p)


def linear(x):
    return B.expand_as(x)


def quadratic(x):
    return x @ (A + A.T) + B


def cubic(x):
    return 3 * B * x**2


def truth(f):
    """The gradient of E[f] from the values f(e_1) .. f(e_C)."""
    return jacobian(LOGITS.softmax(-1)) @ f(torch.eye(4, dtype=torch.float64))


def quadratic_value(x):
    return torch.einsum("...i,ij,...j->...", x, A, x) + x @ B


# Each formula against an independent form of it: dense Jacobians, or the paper's stop-gradient code under autograd.


def reference(rule, x, g):
    """The gradient at sample x for arriving g, for the rules without noise."""
    theta = LOGITS.clone().requires_grad_()
    p = theta.softmax(-1).detach()
    match rule:
        case softdraw.StraightThrough():
            return torch.autograd.grad((theta / rule.tau).softmax(-1) @ g, theta)[0]
        case softdraw.GappedStraightThrough():
            top, d = theta.max().detach(), theta.detach()
            m1 = (top - d[x.argmax()]) * x
            m2 = torch.relu(d - top + rule.gap) * (1 - x)
            return torch.autograd.grad(((theta + m1 - m2) / rule.tau).softmax(-1) @ g, theta)[0]
        case softdraw.ZGR():
            return (jacobian(p) + torch.outer(x - p, x - p)) @ g / 2
        case softdraw.ReinMax():
            middle = ((theta.detach() / rule.tau).softmax(-1) + x) / 2
            free = (middle.log() - theta.detach() + theta).softmax(-1)
            return torch.autograd.grad((2 * free - theta.softmax(-1) / 2) @ g, theta)[0]
    raise AssertionError(rule)


@pytest.mark.parametrize(
    "rule",
    [r for r in PATHWISE if type(r).__name__ in ("StraightThrough", "GappedStraightThrough", "ZGR", "ReinMax")],
    ids=label,
)
def test_formula(rule):
    for x in torch.eye(4, dtype=torch.float64):
        theta = LOGITS.clone().requires_grad_()
        y = softdraw.draw(softdraw.OneHotCategorical(theta), rule, value=x)
        close(torch.autograd.grad(y, theta, B)[0], reference(rule, x, B))


@pytest.mark.parametrize("tau", [0.3, 1.0])
def test_formula_of_the_relaxation(tau):
    theta = LOGITS.clone().requires_grad_()
    y = softdraw.draw(softdraw.OneHotCategorical(theta), softdraw.GumbelSoftmax(tau), seed=5)
    expected = ((theta + softdraw.gumbel_noise((4,), seed=5, dtype=torch.float64)) / tau).softmax(-1)
    close(y, expected)
    close(torch.autograd.grad(y @ B, theta)[0], torch.autograd.grad(expected @ B, theta)[0])


def relaxed_bit_slopes(delta, tau):
    """(E[y(1-y)/tau; x=1], E[y(1-y)/tau; x=0]) of y = sigmoid((delta + L)/tau), L logistic, by the trapezoid rule."""
    logistic = torch.linspace(-40, 40, 4_000_001, dtype=torch.float64)
    density = torch.sigmoid(logistic) * torch.sigmoid(-logistic)
    y = torch.sigmoid((delta + logistic) / tau)
    slope = y * (1 - y) / tau * density
    step = logistic[1] - logistic[0]
    return (slope[logistic + delta > 0].sum() * step).item(), (slope[logistic + delta <= 0].sum() * step).item()


@pytest.mark.parametrize(
    ("rule", "noises"),
    [
        (softdraw.StraightThroughGumbel(0.5), 200_000),
        (softdraw.StraightThroughGumbel(2.0, backward_tau=0.5), 200_000),
        (softdraw.GumbelRao(0.5, 20), 10_000),
    ],
    ids=label,
)
def test_mean_of_straight_through_gumbel_by_quadrature(rule, noises):
    # C = 2: the score difference is logistic, so the closed form of the mean is one integral for each sample.
    logits, g = torch.tensor([0.0, 0.8], dtype=torch.float64), torch.tensor([[0.3, -1.0], [2.0, 0.7]])
    one, zero = relaxed_bit_slopes(0.8, 0.5)
    expected = zero * (g[0, 1] - g[0, 0]) + one * (g[1, 1] - g[1, 0])  # of logits[1]; minus it of logits[0]
    found = enumerated(rule, logits, lambda x: x @ g.double(), noises)
    assert abs(found.mean[1] - expected) < 4 * found.error[1]
    assert found.error[1] < 0.01 * abs(expected)


@pytest.mark.parametrize(
    "rule",
    [softdraw.StraightThroughGumbel(0.6), softdraw.GumbelRao(0.6, 3), softdraw.ReinMaxRao(0.6, 1)],
    ids=label,
)
def test_drawn_and_given_samples_have_one_mean(rule):
    """A drawn sample's own noise serves only where it has the law that the rule asks for; z-scores below 4.5."""
    n = 100_000
    leaf = LOGITS.expand(n, 4).clone().requires_grad_()
    y = softdraw.draw(softdraw.OneHotCategorical(leaf), rule, seed=1)
    g = torch.autograd.grad(y, leaf, quadratic(y.detach()))[0]
    given = enumerated(rule, LOGITS, quadratic, 20_000, seed=2)
    error = (g.var(0) / n + given.error**2).sqrt()
    assert ((g.mean(0) - given.mean) / error).abs().max() < 4.5


def test_mean_of_reinmax_rao_by_quadrature():
    rule, logits = softdraw.ReinMaxRao(0.7, 50), torch.tensor([0.0, 0.8], dtype=torch.float64)
    g, p = torch.tensor([0.3, -1.0], dtype=torch.float64), logits.softmax(-1)
    expected = torch.zeros(2, dtype=torch.float64)
    for x in torch.eye(2, dtype=torch.float64):
        theta = ((p + x) / 2).log()
        slopes = relaxed_bit_slopes((theta[1] - theta[0]).item(), 0.7)
        given = slopes[0] / theta.exp()[1] if x[1] else slopes[1] / theta.exp()[0]  # conditional on the sample
        dense = given * torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
        expected += (p @ x) * (2 * dense - jacobian(p) / 2) @ g
    found = enumerated(rule, logits, lambda x: g.expand_as(x), 4_000)
    assert (found.mean - expected).abs().max() < 4 * found.error.max()
    assert found.error.max() < 0.01 * expected.abs().max()


# Exact where the papers say so, and not elsewhere.


def test_straight_through_is_exact_on_linear_f_and_not_on_quadratic():
    close(enumerated(softdraw.StraightThrough(), LOGITS, linear).mean, truth(lambda x: x @ B))
    p, values = LOGITS.softmax(-1), quadratic(torch.eye(4, dtype=torch.float64))
    found = enumerated(softdraw.StraightThrough(), LOGITS, quadratic).mean
    close(found, jacobian(p) @ (p @ values))  # the slope averaged over the samples: the derivative at the mean
    assert (found - truth(quadratic_value)).norm() > 0.1 * truth(quadratic_value).norm()


@pytest.mark.parametrize("rule", [softdraw.ZGR(), softdraw.ReinMax(1.0), softdraw.MinimumVariance(1e9)], ids=label)
def test_second_order_rules_are_exact_on_quadratic_f(rule):
    tolerance = 1e-6 if isinstance(rule, softdraw.MinimumVariance) else 1e-12  # O(1 / tau) for the first
    close(enumerated(rule, LOGITS, linear).mean, truth(lambda x: x @ B), tolerance)
    close(enumerated(rule, LOGITS, quadratic).mean, truth(quadratic_value), tolerance)
    close(enumerated(rule, LOGITS, cubic).mean, 1.5 * truth(lambda x: x**3 @ B), tolerance)  # wrong by one half


@pytest.mark.parametrize("power", [1, 2, 3, 5])
def test_zgr_on_a_power_of_a_bit(power):
    # f = b^n is b on bits, so the truth is p(1 - p); the slope at b is n b^(n - 1), so ZGR's mean is
    # n/2 p(1 - p) for n > 1: exact for n = 2, half too much for n = 3. For n = 1 the slope at b = 0 counts as well.
    theta = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    p = theta.detach().sigmoid()
    total = 0
    for b, weight in ((0.0, 1 - p), (1.0, p)):
        y = softdraw.draw(softdraw.Bernoulli(theta), softdraw.ZGR(), value=torch.tensor(b, dtype=torch.float64))
        total = total + weight * torch.autograd.grad(y**power, theta)[0]
    close(total, max(power, 2) / 2 * p * (1 - p))


def test_zgr_has_its_binary_form():
    theta, g = one_hot_logits(6).requires_grad_(), one_hot_logits(6, seed=3)
    b = (one_hot_logits(6, seed=4) > 0).double()
    y = softdraw.draw(softdraw.Bernoulli(theta), softdraw.ZGR(), value=b)
    p = theta.detach().sigmoid()
    close(torch.autograd.grad(y, theta, g)[0], (b * (1 - p) + (1 - b) * p) * g / 2)


# Identities between rules.


@pytest.mark.parametrize("slope", [linear, quadratic, cubic])
def test_reinmax_at_one_is_zgr(slope):
    for seed in range(3):
        logits = one_hot_logits(4, seed=seed) * 3
        zgr, reinmax = (enumerated(rule, logits, slope) for rule in (softdraw.ZGR(), softdraw.ReinMax(1.0)))
        close(reinmax.mean, zgr.mean)
        close(torch.tensor(reinmax.variance), torch.tensor(zgr.variance))


def test_gumbel_rao_with_one_sample_is_straight_through_gumbel():
    for value in (None, torch.nn.functional.one_hot(torch.tensor([1, 3, 0]), 4).double()):
        grads = []
        for rule in (softdraw.GumbelRao(0.3, 1), softdraw.StraightThroughGumbel(0.3)):
            theta = one_hot_logits(3, 4).requires_grad_()
            y = softdraw.draw(softdraw.OneHotCategorical(theta), rule, value=value, seed=7)
            grads.append(torch.autograd.grad(y, theta, one_hot_logits(3, 4, seed=1))[0])
        close(grads[0], grads[1])


def test_gumbel_rao_tends_to_zgr():
    # Per sample: the mean over the noise is within O(tau) of ZGR; standard error about sqrt(0.1 / (tau K)).
    theta = LOGITS.clone().requires_grad_()
    for x in torch.eye(4, dtype=torch.float64):
        grads = [
            torch.autograd.grad(softdraw.draw(softdraw.OneHotCategorical(theta), r, value=x, seed=0), theta, B)[0]
            for r in (softdraw.GumbelRao(0.01, 100_000), softdraw.ZGR())
        ]
        assert_close(grads[0], grads[1], rtol=0, atol=0.04)


def test_gumbel_rao_variance_falls_with_samples():
    # Given the sample the K noises are independent, so the variance is V + W / K, ST-GS being K = 1 and ZGR near V.
    variances = {
        k: enumerated(softdraw.GumbelRao(0.3, k), LOGITS, quadratic, 40_000 // k).variance for k in (1, 2, 4, 32)
    }
    st_gs = enumerated(softdraw.StraightThroughGumbel(0.3), LOGITS, quadratic, 40_000).variance
    assert abs(variances[1] / st_gs - 1) < 1e-12
    within = (variances[1] - variances[32]) * 32 / 31
    assert within > 0.5 * variances[1]
    assert abs((variances[1] - variances[2]) / within - 1 / 2) < 0.05
    assert abs((variances[1] - variances[4]) / within - 3 / 4) < 0.05


def test_minimum_variance_has_less_variance_than_zgr_where_both_are_exact_at_second_order():
    # Both are exact on quadratics; uniform logits and a linear f, for which the class's optimum is strict.
    for seed in range(5):
        g = one_hot_logits(4, seed=seed)
        mve, zgr = (
            enumerated(r, torch.zeros(4, dtype=torch.float64), lambda x, g=g: g.expand_as(x)).variance
            for r in (softdraw.MinimumVariance(1e9), softdraw.ZGR())
        )
        assert mve < zgr * (1 + 1e-9)


def test_minimum_variance_tends_to_straight_through():
    mve, st = (enumerated(r, LOGITS, quadratic) for r in (softdraw.MinimumVariance(1e-9), softdraw.StraightThrough()))
    close(mve.mean, st.mean, 1e-8)
    assert abs(mve.variance - st.variance) < 1e-7


def test_backward_tau_alone_moves_the_gradient():
    grads = []
    for rule in (softdraw.StraightThroughGumbel(9.0, backward_tau=0.4), softdraw.StraightThroughGumbel(0.4)):
        theta = LOGITS.clone().requires_grad_()
        grads.append(torch.autograd.grad(softdraw.draw(softdraw.OneHotCategorical(theta), rule, seed=2) @ B, theta)[0])
    close(grads[0], grads[1])


def test_the_rule_of_the_guide():
    """docs/add-a-rule.md shows a whole change: the rule in it is made and is what it says, the other half of ZGR."""
    guide = (ROOT / "docs" / "add-a-rule.md").read_text()
    diff = guide.split("```diff\n")[1].split("```")[0]
    checks = [  # that it applies, or has been applied
        subprocess.run(["git", "apply", "--check", *way, "-"], input=diff, text=True, capture_output=True, cwd=ROOT)
        for way in ([], ["--reverse"])
    ]
    assert any(check.returncode == 0 for check in checks), checks[0].stderr
    body = diff.split("+++ b/softdraw/rules/darn.py\n")[1].split("diff --git")[0]
    module = ModuleType("darn")
    sys.modules["darn"] = module  # dataclasses look their module up
    exec("\n".join(line[1:] for line in body.splitlines()[1:]), module.__dict__)
    half, st, zgr = (
        enumerated(r, LOGITS, quadratic) for r in (module.DARN(), softdraw.StraightThrough(), softdraw.ZGR())
    )
    close((half.mean + st.mean) / 2, zgr.mean)
    close(enumerated(module.DARN(), LOGITS, linear).mean, truth(lambda x: x @ B))
