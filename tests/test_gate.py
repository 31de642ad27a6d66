"""Gates: the papers' formulas, numerical integration in float64, and the law of what is drawn."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch.testing import assert_close

import softdraw
from softdraw.nn import Gate
from softdraw.nn.gates import Gaussian, HardConcrete
from softdraw.nn.noise import logistic, normal

THETA = torch.tensor([-3.0, -0.7, 0.0, 0.4, 2.0], dtype=torch.float64)
KEY = torch.tensor(7)


def gate(law, **settings):
    module = Gate(5, law=law, **settings).double()
    with torch.no_grad():
        module.theta.copy_(THETA)
    return module


def test_the_constants_are_the_published_ones():
    assert (HardConcrete.beta, HardConcrete.gamma, HardConcrete.zeta) == (2 / 3, -0.1, 1.1)
    assert Gaussian.sigma == 0.5


def stretched(u, a):
    """Equations 10 and 11 of Louizos et al., written out."""
    s = 1 / (1 + math.exp(-(math.log(u) - math.log(1 - u) + a) / (2 / 3)))
    return min(1.0, max(0.0, s * 1.2 - 0.1))


def expected(law, a, f):
    """E[f(z)] by numerical integration; the point masses at 0 and 1 are where the integrand is constant."""
    if law == "hard-concrete":
        edges = [1 / (1 + math.exp(-(math.log(s / (1 - s)) * 2 / 3 - a))) for s in (0.1 / 1.2, 1.1 / 1.2)]
        return integrate.quad(lambda u: f(stretched(u, a)), 0, 1, points=edges, epsabs=1e-11, limit=400)[0]
    density = stats.norm(a, 0.5).pdf
    middle = integrate.quad(lambda t: f(t) * density(t), 0, 1, epsabs=1e-11)[0]
    return f(0.0) * stats.norm.cdf(-a / 0.5) + middle + f(1.0) * stats.norm.sf((1 - a) / 0.5)


@pytest.mark.parametrize("law", ["hard-concrete", "gaussian"])
def test_expected_l0_against_integration(law):
    by_integral = [expected(law, a, lambda z: float(z > 0)) for a in THETA.tolist()]
    module = gate(law)
    assert_close(module.expected_l0().item(), sum(by_integral), rtol=1e-7, atol=0)
    assert_close(module(draw=True, seed=0).law.probs, torch.tensor(by_integral, dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize("ids", [None, torch.arange(60).view(12, 5, 1) * 2**33])
def test_the_one_pass_is_the_formula(ids):
    """Equations 10 and 11 on the logistic noise: value, gradient, and the gradient of the gradient."""
    law, theta = HardConcrete(), THETA.clone().requires_grad_()
    wide = theta.expand(12, 5)
    z = law.draw(wide, None, None, KEY, ids)
    exact = law.stretched(torch.sigmoid((logistic(wide, KEY, ids) + wide) / (2 / 3)))
    assert ((z == 0) | (z == 1)).any() & ((z > 0) & (z < 1)).any()
    w = torch.linspace(-1, 2, 60, dtype=torch.float64).view(12, 5)
    assert_close(z, exact)
    first, second = (torch.autograd.grad(y, theta, w, create_graph=True)[0] for y in (z, exact))
    assert_close(first, second)
    assert_close(torch.autograd.grad(first.sum(), theta)[0], torch.autograd.grad(second.sum(), theta)[0])


def test_expected_l0_against_the_papers():
    """Equation 12 of Louizos et al.; below equation 5 of Yamada et al."""
    sigmoid = 1 / (1 + np.exp(-(THETA.numpy() - 2 / 3 * np.log(0.1 / 1.1))))
    assert_close(gate("hard-concrete").expected_l0().item(), sigmoid.sum())
    assert_close(gate("gaussian").expected_l0().item(), stats.norm.cdf(THETA.numpy() / 0.5).sum())
    assert_close(gate("bernoulli").expected_l0(), THETA.sigmoid().sum())


@pytest.mark.parametrize("law", ["hard-concrete", "gaussian", "bernoulli"])
def test_the_gradient_of_expected_l0(law):
    module = gate(law)
    (g,) = torch.autograd.grad(module.expected_l0(), module.theta)
    h = 1e-5
    for i in range(5):
        at = []
        for step in (h, -h):
            moved = gate(law)
            with torch.no_grad():
                moved.theta[i] += step
            at.append(moved.expected_l0().item())
        assert_close(g[i].item(), (at[0] - at[1]) / (2 * h), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("law", ["hard-concrete", "gaussian"])
def test_drawn_gates_have_the_law_and_their_gradient_is_unbiased(law):
    module, n = gate(law), 20_000
    z = module(torch.ones(n, 5, dtype=torch.float64), seed=1).value
    (g,) = torch.autograd.grad(z.square().mean(0).sum(), module.theta)
    for i, a in enumerate(THETA.tolist()):
        for f in (lambda t: t, lambda t: t * t, lambda t: float(t > 0), lambda t: float(t == 1)):
            values = np.array([f(t) for t in z[:, i].tolist()])
            assert abs(values.mean() - expected(law, a, f)) <= 5 * values.std() / n**0.5 + 1e-9
        h = 1e-4
        slope = (expected(law, a + h, lambda t: t * t) - expected(law, a - h, lambda t: t * t)) / (2 * h)
        assert abs(g[i] - slope) < 5 * 2.5 / n**0.5


def test_decisions_are_those_of_the_papers():
    s = THETA.sigmoid()
    assert_close(gate("hard-concrete").eval()().value, (s * 1.2 - 0.1).clamp(0, 1))  # eq. 13
    assert_close(gate("gaussian").eval()().value, THETA.clamp(0, 1))
    assert torch.equal(gate("bernoulli").eval()().value, (THETA > 0).double())


def test_bits_have_the_gradient_of_their_rule():
    theta = THETA.clone().requires_grad_()
    for rule in (softdraw.ZGR(), softdraw.StraightThrough(), softdraw.ReinMax(tau=1.2)):
        module = gate("bernoulli", rule=rule)
        x = torch.arange(10.0, dtype=torch.float64).view(2, 5)
        value = module(x, seed=3).value
        bits = softdraw.draw(softdraw.Bernoulli(theta.expand(2, 5)), rule, seed=3)
        assert torch.equal(value, x * bits)
        assert_close(
            torch.autograd.grad(value.square().sum(), module.theta),
            torch.autograd.grad((x * bits).square().sum(), theta),
        )


def test_bits_and_hard_concrete_gates_share_their_noise():
    """The logistic noise is the difference of the Gumbels that draw a bit."""
    x = torch.ones(2000, 5, dtype=torch.float64)
    bits, z = (gate(law)(x, seed=2).value for law in ("bernoulli", "hard-concrete"))
    assert torch.equal(bits == 1, z > 0.5)


@pytest.mark.parametrize(("make", "law"), [(normal, stats.norm), (logistic, stats.logistic)])
def test_the_noise_has_its_law(make, law):
    like = torch.zeros(20_000, 1, dtype=torch.float64)
    x = make(like, KEY, None).flatten().numpy()
    assert stats.kstest(x, law.cdf).pvalue > 1e-4
    wide = make(like.float(), KEY, None).flatten().double().numpy()
    assert abs(wide - x).max() < 1e-3  # of uniforms close to 1, which float32 resolves to 6e-8
    assert np.median(abs(wide - x)) < 1e-6


def test_the_noise_of_rows_and_columns_is_independent():
    x = normal(torch.zeros(100, 60, dtype=torch.float64), KEY, None)
    for a, b in ((x[:, 0], x[:, 1]), (x[0], x[1]), (x[:-1].flatten(), x[1:].flatten())):
        r = torch.corrcoef(torch.stack((a, b)))[0, 1] * len(a) ** 0.5
        assert abs(r) < 4


def test_groups_share_a_gate():
    groups = torch.tensor([2, 0, 0, 1, 2])
    module = Gate(5, groups=groups)
    with torch.no_grad():
        module.theta.copy_(torch.tensor([-1.0, 0.5, 2.0]))
    choice = module(torch.ones(50, 5), seed=0)
    assert torch.equal(choice.value[:, 0], choice.value[:, 4])
    assert torch.equal(choice.value[:, 1], choice.value[:, 2])
    alone = Gate(3)
    alone.load_state_dict(module.state_dict())
    assert torch.equal(choice.value, alone(torch.ones(50, 3), seed=0).value[:, groups])
    assert_close(module.expected_l0(), choice.law.probs[0, groups].sum())
    assert "gates=3" in repr(module)
    with torch.no_grad():
        assert module.eval()().index.shape == (5,)


def test_gates_from_a_network():
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    choice = Gate(5)(x, logits=logits, seed=0)
    z = Gate(5)(logits=logits, seed=0).value
    assert_close(choice.value, x * z)
    assert torch.equal(choice.index, z > 0)
    l0 = choice.law.probs.sum(-1).mean()
    assert torch.autograd.grad(l0, logits)[0].abs().min() > 0


def test_a_shape_of_two_dimensions_and_one_draw_for_weights():
    module = Gate((2, 3))
    assert module(seed=1).value.shape == (2, 3)
    assert module(torch.ones(7, 2, 3), seed=1).value.shape == (7, 2, 3)
    assert torch.equal(module(torch.ones(7, 2, 3), seed=1).value[0], module(seed=1).value)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: Gate(5, law="concrete"),
            ValueError,
            ["law", "'bernoulli', 'gaussian'", "'concrete'"],
        ),
        (lambda: Gate(5, law=None), ValueError, ["law", "None"]),
        (lambda: Gate(2.5), TypeError, ["shape", "2.5"]),
        (lambda: Gate(True), TypeError, ["shape", "True"]),
        (lambda: Gate(5, rule=softdraw.ZGR()), TypeError, ["rule", "law='bernoulli'", "'hard-concrete'"]),
        (lambda: Gate(5, law="bernoulli", rule=softdraw.DisARM()), TypeError, ["rule", "DisARM"]),
        (lambda: Gate(5, groups=[0, 0, 1, 1, 1]), TypeError, ["groups", "int64", "list"]),
        (lambda: Gate(5, groups=torch.zeros(5)), TypeError, ["groups", "int64", "float32"]),
        (lambda: Gate(5, groups=torch.zeros(4).long()), ValueError, ["groups", "(5,)"]),
        (lambda: Gate(5, groups=torch.tensor([0, -1, 0, 0, 0])), ValueError, ["groups", "at least 0", "-1"]),
        (lambda: Gate(5, groups=torch.zeros(5).long().to("meta")), ValueError, ["groups", "meta"]),
        (lambda: Gate(5)(torch.ones(2, 4)), ValueError, ["x", "(5,)", "(2, 4)"]),
        (lambda: Gate(5)(torch.ones(2, 5).long()), TypeError, ["x", "torch.int64"]),
        (lambda: Gate(5)(logits=torch.ones(2, 4)), ValueError, ["logits", "(5,)", "(2, 4)"]),
        (lambda: Gate(5)(torch.ones(2, 5), mask=torch.ones(5)), TypeError, ["mask", "bool"]),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert all(word in str(caught.value) for word in words), caught.value
