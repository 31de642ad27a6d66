"""The score-function rules: unbiased for the value and for the gradient, through several variables and black boxes."""

import math

import pytest
import torch
from torch.distributions import Independent
from torch.testing import assert_close

import softdraw
from tests.methods import SCORE, exact_gradient, label, one_hot_logits

ONE_HOT = one_hot_logits(2, 3)
BITS = torch.tensor([0.7, -1.1, 0.3], dtype=torch.float64)
W = one_hot_logits(6, 6, seed=2)


def f(y):
    """A scalar of every variable at once, of third order: (S, ..., variables[, C]) -> (S, ...)."""
    flat = y.flatten(2)
    flat = flat @ W[: flat.shape[-1], : flat.shape[-1]]
    return flat.square().sum(-1) + flat.prod(-1)


def one_hots(logits):
    return Independent(softdraw.OneHotCategorical(logits), 1)


def bits(logits):
    return Independent(softdraw.Bernoulli(logits), 1)


CASES = [(rule, ONE_HOT, one_hots) for rule in SCORE if not isinstance(rule, softdraw.DisARM)]
CASES += [(rule, BITS, bits) for rule in SCORE]


def ids(x):
    return x.__name__ if callable(x) else "" if isinstance(x, torch.Tensor) else label(x)


def repeated(logits, n):
    return logits.expand(n, *logits.shape).clone().requires_grad_()


@pytest.mark.parametrize(("rule", "logits", "law"), CASES, ids=ids)
def test_unbiased(rule, logits, law):
    """z-scores of the means over 250,000 replicates (about 1e6 draws) against enumeration; P(any |z| > 5) < 1e-4."""
    n = 1 if isinstance(rule, softdraw.Exact) else 250_000
    leaf = repeated(logits, n)
    estimate = softdraw.expect(f, law(leaf), rule, seed=11)
    gradient = torch.autograd.grad(estimate.sum(), leaf)[0].flatten(1)
    one = logits.clone().requires_grad_()
    value, truth = exact_gradient(lambda y: f(y.unsqueeze(1)).squeeze(1), law(one), one)
    for draws, expected in ((estimate.detach().unsqueeze(-1), value.unsqueeze(-1)), (gradient, truth.flatten())):
        if n == 1:
            assert_close(draws[0], expected, rtol=1e-12, atol=1e-12)
        else:
            z = (draws.mean(0) - expected) / (draws.std(0) / math.sqrt(n))
            assert z.abs().max() < 5, z
            assert draws.std() > 0.01


@pytest.mark.parametrize("rule", [r for r in SCORE if not isinstance(r, softdraw.Rebar)], ids=label)
def test_black_box_f(rule):
    def through_numpy(y):
        assert not y.requires_grad
        return y.numpy().sum(-1).astype("float64") ** 2

    logits = one_hot_logits(4, 3).requires_grad_()
    loss = softdraw.expect(through_numpy, bits(logits), rule, seed=0)
    assert loss.shape == (4,)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient.abs().sum() > 0
    value, truth = exact_gradient(lambda y: y.sum(-1) ** 2, bits(logits), logits)
    if isinstance(rule, softdraw.Exact):
        assert_close(loss.detach(), value)
        assert_close(gradient, truth)


def test_variance_of_one_bit():
    # Reference C at t = 0.45: RLOO with two samples 6.25e-4, REINFORCE 1.594e-2, DisARM nothing at all.
    from softdraw.reproduce import bernoulli

    for _, rule, published in bernoulli.PUBLISHED:
        for target, true, variance in zip(bernoulli.TARGETS, bernoulli.TRUE, published, strict=True):
            mean, found = bernoulli.measure(rule, target, draws=200_000, seed=1)
            assert abs(mean - true) <= 5 * math.sqrt(variance / 200_000) + 1e-12
            assert_close(found, variance, rtol=0.02, atol=1e-12)


def test_disarm_halves_what_two_reinforce_samples_leave():
    leaf = repeated(BITS, 100_000)
    variances = []
    for rule in (softdraw.DisARM(1), softdraw.LeaveOneOut(2)):
        (g,) = torch.autograd.grad(softdraw.expect(f, bits(leaf), rule, seed=3).sum(), leaf)
        variances.append(g.var(0).sum())
    assert variances[0] < variances[1]


def test_rebar_tunes_its_control_by_the_variance_alone():
    eta, tau = torch.tensor(0.0, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    leaf = repeated(ONE_HOT, 20_000)

    def variance():
        loss = softdraw.expect(f, one_hots(leaf), softdraw.Rebar(tau=tau, eta=eta), seed=5).sum()
        assert torch.autograd.grad(loss, [eta, tau], retain_graph=True, materialize_grads=True) == (0, 0)
        (g,) = torch.autograd.grad(loss, leaf, create_graph=True)
        return g.square().sum() / len(leaf)

    start = variance()
    (slope,) = torch.autograd.grad(start, eta)
    h = 1e-3  # the second moment is quadratic in eta, so the central difference is its derivative
    shifted = []
    for step in (h, -h):
        with torch.no_grad():
            eta.fill_(step)
        shifted.append(variance().item())
    assert_close(slope.item(), (shifted[0] - shifted[1]) / (2 * h), rtol=1e-3, atol=1e-3)
    best = (slope / ((shifted[0] + shifted[1] - 2 * start) / h**2)).neg()
    with torch.no_grad():
        eta.copy_(best)
    assert variance() < 0.9 * start


def test_parameters_inside_f_get_their_gradient():
    w = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    logits = one_hot_logits(3)
    for rule in (softdraw.Exact(), softdraw.SumAndSample(3), softdraw.SumAndSample(1, samples=200_000)):
        loss = softdraw.expect(lambda y: y @ w, softdraw.OneHotCategorical(logits), rule, seed=0)
        tolerance = 0.01 if rule == softdraw.SumAndSample(1, samples=200_000) else 1e-12
        assert_close(torch.autograd.grad(loss, w)[0], logits.softmax(-1), rtol=0, atol=tolerance)


def test_a_sum_over_everything_is_exact():
    grads = []
    for rule in (softdraw.Exact(chunk=2), softdraw.SumAndSample(summed=9)):
        leaf = ONE_HOT.expand(4, 2, 3).clone().requires_grad_()
        grads.append(torch.autograd.grad(softdraw.expect(f, one_hots(leaf), rule, seed=0).sum(), leaf)[0])
    assert_close(grads[0], grads[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", SCORE, ids=label)
def test_masked_variables(rule):
    mask = torch.tensor([True, False, True])
    leaf = one_hot_logits(50, 3).requires_grad_()
    law = Independent(softdraw.Bernoulli(leaf, mask), 1)
    seen = []

    def g(y):
        seen.append(y.detach())
        return (y @ torch.tensor([1.0, 5.0, -2.0], dtype=torch.float64)) ** 2

    (gradient,) = torch.autograd.grad(softdraw.expect(g, law, rule, seed=0).sum(), leaf)
    assert gradient.isfinite().all()
    assert not gradient[:, 1].any()
    assert gradient[:, [0, 2]].any()
    if not isinstance(rule, (softdraw.Exact, softdraw.SumAndSample)):
        assert not torch.cat(seen)[..., 1].any()


def test_several_layers_of_independent_and_no_batch():
    leaf = one_hot_logits(2, 2, 3).requires_grad_()
    law = Independent(Independent(softdraw.OneHotCategorical(leaf), 1), 1)

    def g(y):
        assert y.shape[1:] == (2, 2, 3)
        return y.flatten(1).square().sum(-1) * y[:, 0, 0, 0]

    loss = softdraw.expect(g, law, softdraw.Exact())
    p = leaf.detach().softmax(-1)
    assert_close(loss.detach(), 4 * p[0, 0, 0])
    expected = torch.zeros_like(p)
    expected[0, 0] = 4 * p[0, 0, 0] * (torch.tensor([1.0, 0.0, 0.0]) - p[0, 0])
    assert_close(torch.autograd.grad(loss, leaf)[0], expected)


def test_refusals():
    one_hot, bit = softdraw.OneHotCategorical(torch.zeros(3)), softdraw.Bernoulli(torch.zeros(20))
    with pytest.raises(TypeError, match="DisARM does not serve OneHotCategorical: it needs bits"):
        softdraw.expect(lambda y: y[..., 0], one_hot, softdraw.DisARM())
    with pytest.raises(ValueError, match=r"would have to enumerate 1.05e\+06 joint states"):
        softdraw.expect(lambda y: y.sum(-1), Independent(bit, 1), softdraw.Exact())
    with pytest.raises(ValueError, match=r"to values of shape \(4, 20\), got \(4,\).*Independent"):
        softdraw.expect(lambda y: y.sum(-1), bit, softdraw.LeaveOneOut(4))
    with pytest.raises(ValueError, match="samples=3 is for pathwise rules"):
        softdraw.expect(lambda y: y, bit, softdraw.LeaveOneOut(4), samples=3)
    with pytest.raises(ValueError, match="samples of LeaveOneOut must be at least 2"):
        softdraw.LeaveOneOut(1)
    with pytest.raises(TypeError, match="rule must be a gradient rule"):
        softdraw.expect(lambda y: y, bit, softdraw.ZGR)
