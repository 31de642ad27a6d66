"""The corners of laws: probabilities of zero and one, infinite logits, half precision, forward mode."""

import math

import pytest
import torch
from torch.distributions import Independent, kl_divergence
from torch.testing import assert_close

import softdraw
from softdraw.laws import from_torch
from tests.methods import PATHWISE, label, one_hot_logits

# Probabilities of zero and one, infinite logits


def test_probabilities_make_the_same_law_as_torchs():
    p = torch.tensor([[0.2, 0.0, 0.8], [0.5, 0.25, 0.25]], dtype=torch.float64)
    ours, theirs = softdraw.OneHotCategorical(probs=3 * p), torch.distributions.OneHotCategorical(probs=3 * p)
    assert_close(ours.probs, theirs.probs)
    assert_close(ours.logits.exp(), p)
    assert ours.logits[0, 1] == -math.inf
    logits = torch.randn(3, 5)
    assert_close(softdraw.OneHotCategorical(logits).logits, torch.distributions.OneHotCategorical(logits=logits).logits)
    assert softdraw.OneHotCategorical(logits).param_shape == (3, 5)
    bits = torch.tensor([0.0, 0.3, 1.0])
    ours, theirs = softdraw.Bernoulli(probs=bits), torch.distributions.Bernoulli(probs=bits)
    assert_close(ours.probs, theirs.probs)
    assert torch.equal(ours.sample((100,), seed=0)[:, [0, 2]].unique(dim=0), torch.tensor([[0.0, 1.0]]))
    assert_close(ours.log_prob(torch.tensor([0.0, 1.0, 1.0])), torch.tensor([0.0, math.log(0.3), 0.0]))
    leaf = p.clone().requires_grad_()
    (g,) = torch.autograd.grad(softdraw.OneHotCategorical(probs=leaf).entropy().sum(), leaf)
    assert g.isfinite().all()
    assert g[0, 1].abs() < 1e-12
    for bad, message in (((), "neither"), ((logits, p), "both")):
        with pytest.raises(TypeError, match=message):
            softdraw.OneHotCategorical(bad[0] if bad else None, probs=bad[1] if bad else None)
    with pytest.raises(ValueError, match="probs must not be negative"):
        softdraw.OneHotCategorical(probs=torch.tensor([0.5, -0.5]))
    with pytest.raises(ValueError, match=r"probs must be from 0 to 1"):
        softdraw.Bernoulli(probs=torch.tensor([1.5]))


def test_torchs_zero_probabilities_stay_zero():
    p = torch.zeros(100_000)
    p[0] = 1.0
    one = torch.distributions.OneHotCategorical(probs=p)
    for law in (one, torch.distributions.Categorical(probs=p)):
        assert (softdraw.draw(law, sample_shape=(2000,), seed=0)[:, 0] == 1).all()
    small = torch.distributions.OneHotCategorical(probs=torch.tensor([0.0, 1.0]))
    assert kl_divergence(softdraw.OneHotCategorical(torch.zeros(2)), small) == math.inf
    assert_close(kl_divergence(small, softdraw.OneHotCategorical(torch.zeros(2))), torch.tensor(math.log(2)))
    never = torch.distributions.Bernoulli(probs=torch.zeros(1))
    always = torch.distributions.Bernoulli(probs=torch.ones(1))
    fair = softdraw.Bernoulli(torch.zeros(1))
    for law in (never, always):
        assert kl_divergence(fair, law) == math.inf
        assert_close(kl_divergence(law, fair), torch.tensor([math.log(2)]))
    assert softdraw.draw(always, sample_shape=(100,), seed=0).all()
    assert not softdraw.draw(never, sample_shape=(100,), seed=0).any()
    f = lambda y: torch.where(y[..., 0] > 0, 1e9, 0.0)  # noqa: E731
    assert softdraw.expect(f, small, softdraw.Exact()) == 0
    for law in (small, never, always):
        wide = law.expand((2, *law.batch_shape))  # which holds probs and logits, where torch has computed both
        wide.logits, wide.probs  # noqa: B018
        p = softdraw.OneHotCategorical(torch.zeros(2)) if law is small else fair
        assert (kl_divergence(p, wide) == math.inf).all()
    tiny = torch.distributions.OneHotCategorical(probs=torch.tensor([1e-12, 1.0]))  # torch's logits end at 1.2e-7
    value = softdraw.expect(lambda y: y[..., 0], tiny, softdraw.Exact())
    assert_close(value, torch.tensor(1e-12), rtol=1e-5, atol=0)


def test_laws_and_losses_have_one_answer_at_infinite_logits():
    x = torch.tensor([[math.inf, 0.0, 1.0], [math.inf, math.inf, 0.0], [0.0, -math.inf, 1.0]], requires_grad=True)
    law = softdraw.OneHotCategorical(x)
    for k in range(3):
        target = torch.full((3,), k)
        ours = -law.log_prob(torch.nn.functional.one_hot(target, 3).float())
        assert torch.equal(ours, softdraw.losses.categorical_nll(x, target, reduction="none"))
    assert torch.equal(law.entropy(), softdraw.losses.entropy(x, reduction="none"))
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    assert torch.equal(law.probs[:2], expected)
    (gradient,) = torch.autograd.grad(law.entropy().sum(), x)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("dtype", "a"), [(torch.float32, 3e38), (torch.bfloat16, 3e38), (torch.float64, 1.5e308)])
def test_entropy_where_finite_logits_differ_by_more_than_a_float_holds(dtype, a):
    for row in ([a, -a], [a, -a / 4, 0.0], [a, -a, -a]):
        x = torch.tensor(row, dtype=dtype, requires_grad=True)
        h = softdraw.OneHotCategorical(x).entropy()
        assert h == 0
        assert not torch.autograd.grad(h, x)[0].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_exact_is_exact_in_half_precision(dtype):
    x = torch.linspace(-2, 2, 12).to(dtype).requires_grad_()
    law = Independent(softdraw.Bernoulli(x), 1)
    assert_close(softdraw.expect(lambda b: torch.ones(b.shape[:-1]), law, softdraw.Exact()), torch.tensor(1.0))
    value = softdraw.expect(lambda b: (b.double().sum(-1) - 0.3) ** 2, law, softdraw.Exact())
    wide = x.detach().double().requires_grad_()
    p = wide.sigmoid()
    reference = (p.sum() - 0.3) ** 2 + (p * (1 - p)).sum()
    assert_close(value.double(), reference, rtol=1e-5, atol=0)
    (found,), (exact,) = torch.autograd.grad(value, x), torch.autograd.grad(reference, wide)
    assert_close(found.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-5)


def test_forward_mode_and_hessians_of_a_law():
    x, value = one_hot_logits(2, 3), torch.eye(3, dtype=torch.float64)[:2]
    for f in (
        lambda x: softdraw.OneHotCategorical(x).entropy().sum(),
        lambda x: (softdraw.OneHotCategorical(x).mean ** 2).sum(),
        lambda x: softdraw.OneHotCategorical(x).log_prob(value).sum(),
        lambda x: (softdraw.Bernoulli(x).mean ** 2).sum(),
        lambda x: softdraw.Bernoulli(x).log_prob(value).sum(),
        lambda x: softdraw.OneHotCategorical(x).log_normalizer().sum(),
    ):
        assert_close(torch.func.hessian(f)(x), torch.autograd.functional.hessian(f, x))
        tangent = one_hot_logits(2, 3, seed=1)
        assert_close(torch.func.jvp(f, (x,), (tangent,))[1], (torch.func.grad(f)(x) * tangent).sum())


def test_kl_with_poisson_is_torchs():
    x, rate = torch.tensor([0.3, -2.0]), torch.tensor([0.7, 2.0])
    ours = kl_divergence(softdraw.Bernoulli(x), torch.distributions.Poisson(rate))
    theirs = kl_divergence(torch.distributions.Bernoulli(logits=x), torch.distributions.Poisson(rate))
    assert_close(ours, theirs)


def test_second_derivatives_in_forward_mode_alone():
    """torch.func differentiates no jvp of an autograd.Function again: it would be 0, without an error."""
    x = one_hot_logits(2, 3)

    def f(x):
        s = torch.sin(x)
        return (softdraw.straight_through(s.detach().round(), s) * s).sum()

    reference = torch.autograd.functional.hessian(f, x)
    assert_close(torch.func.jacfwd(torch.func.jacfwd(f))(x), reference)
    entropy = lambda x: softdraw.OneHotCategorical(x).entropy().sum()  # noqa: E731
    assert_close(torch.func.jacfwd(torch.func.jacfwd(entropy))(x), torch.autograd.functional.hessian(entropy, x))


def test_a_bit_that_is_forbidden_is_zero_whatever_its_logit():
    for bit in (
        softdraw.Bernoulli(torch.tensor([math.inf]), torch.tensor([False])),
        softdraw.Bernoulli(probs=torch.ones(1), mask=torch.tensor([False])),
    ):
        zero = torch.zeros(1)
        for found in (bit.sample(seed=0), bit.probs, bit.mode, bit.entropy(), bit.log_prob(zero), bit.log_normalizer()):
            assert torch.equal(found, zero)
        assert bit.log_prob(torch.ones(1)) == -math.inf
        assert softdraw.expect(lambda b: b + 2, bit, softdraw.Exact()) == 2


@pytest.mark.parametrize("rule", PATHWISE, ids=label)
def test_every_rule_has_finite_gradients_at_certain_bits(rule):
    theta = torch.tensor([math.inf, -math.inf, 0.3], requires_grad=True)
    y = softdraw.draw(softdraw.Bernoulli(theta), rule, seed=0)
    assert torch.equal(y[:2].detach().round(), torch.tensor([1.0, 0.0]))
    (g,) = torch.autograd.grad(y.sum(), theta)
    assert g.isfinite().all()
    assert not g[:2].any()


def test_the_covariance_is_rounded_once():
    theta = torch.tensor([20.0, -20.0], dtype=torch.float16)
    g = torch.full((2,), 1e4, dtype=torch.float16)
    wide = softdraw.Bernoulli(theta.double()).covariance_product(g.double())
    assert_close(softdraw.Bernoulli(theta).covariance_product(g).double(), wide, rtol=1e-2, atol=0)


def test_laws_over_other_categories_have_no_divergence():
    for k, n in ((1, 4), (3, 4)):
        with pytest.raises(ValueError, match=rf"same categories, got .*\({k},\).*\({n},\)"):
            kl_divergence(softdraw.OneHotCategorical(torch.zeros(k)), softdraw.OneHotCategorical(torch.zeros(n)))


@pytest.mark.parametrize("rule", [softdraw.LeaveOneOut(8), softdraw.Reinforce(samples=8), softdraw.Exact()], ids=label)
def test_values_of_f_in_half_precision_are_summed_in_float32(rule):
    x = torch.zeros(3, requires_grad=True)
    f = lambda y: (y * torch.arange(3.0)).sum(-1)  # noqa: E731
    law = softdraw.OneHotCategorical(x)
    half = softdraw.expect(lambda y: f(y).half() * 2e4, law, rule, seed=0)
    wide = softdraw.expect(lambda y: f(y) * 2e4, law, rule, seed=0)
    assert_close(half, wide)
    assert_close(torch.autograd.grad(half, x)[0], torch.autograd.grad(wide, x)[0])


def test_a_part_of_a_relaxed_law_and_of_no_rows():
    theta, tau = one_hot_logits(5, 3, 4), torch.linspace(0.5, 1.0, 15, dtype=torch.float64).view(5, 3)
    law = softdraw.RelaxedOneHotCategorical(tau, theta)
    y = law.rsample(seed=0)
    for index in (0, slice(1, 4), (2, 1), (..., 0), []):
        part = law[index]
        assert type(part) is softdraw.RelaxedOneHotCategorical
        rows = (..., 0, slice(None)) if index == (..., 0) else index
        assert_close(part.log_prob(y[rows]), law.log_prob(y)[index])
    assert softdraw.OneHotCategorical(theta)[[]].batch_shape == (0, 3)


def test_a_law_of_torch_that_was_made_from_logits_keeps_them():
    x = torch.tensor([0.0, -20.0, -200.0, 30.0])
    law = torch.distributions.OneHotCategorical(logits=x)
    law.probs  # noqa: B018  (computed, and rounded to 0 for one category)
    assert_close(from_torch(law).logits, x.double().log_softmax(-1).float())
    bits = torch.distributions.Bernoulli(logits=x)
    bits.probs  # noqa: B018
    assert torch.equal(from_torch(bits).theta, x)


@pytest.mark.parametrize(
    "rule",
    [softdraw.LeaveOneOut(8), softdraw.Reinforce(samples=8), softdraw.Exact(), softdraw.SumAndSample(2, 4)],
    ids=label,
)
def test_an_f_that_works_in_place_changes_no_gradient(rule):
    x, w = torch.tensor([1.0, 0.0, -1.0], requires_grad=True), torch.tensor([3.0, 1.0, -2.0])
    law = softdraw.OneHotCategorical(x)
    found = torch.autograd.grad(softdraw.expect(lambda y: (y.mul_(2) * w).sum(-1) / 2, law, rule, seed=0), x)[0]
    assert_close(found, torch.autograd.grad(softdraw.expect(lambda y: (y * w).sum(-1), law, rule, seed=0), x)[0])
