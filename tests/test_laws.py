"""The laws against torch's own and against enumeration; masks, dtypes, KL, torch's idioms."""

import math

import pytest
import torch
from scipy.stats import chisquare
from torch import distributions
from torch.distributions import Independent, TransformedDistribution, kl_divergence
from torch.testing import assert_close

import softdraw
from tests.methods import one_hot_logits

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
MASK = torch.tensor([True, False, True, True])


def one_hot(logits=None, mask=None):
    return softdraw.OneHotCategorical(one_hot_logits(3, 4) if logits is None else logits, mask)


def pairs():
    """(ours, torch's) of the same law."""
    logits = one_hot_logits(3, 4)
    return [
        (softdraw.OneHotCategorical(logits), distributions.OneHotCategorical(logits=logits)),
        (softdraw.Bernoulli(logits), distributions.Bernoulli(logits=logits)),
    ]


@pytest.mark.parametrize(("ours", "theirs"), pairs(), ids=["one-hot", "bernoulli"])
def test_numbers_are_torchs(ours, theirs):
    assert ours.batch_shape == theirs.batch_shape
    assert ours.event_shape == theirs.event_shape
    for name in ("mean", "mode", "variance", "probs", "stddev"):
        assert_close(getattr(ours, name), getattr(theirs, name))
    assert_close(ours.entropy(), theirs.entropy())
    support = theirs.enumerate_support()
    assert torch.equal(ours.enumerate_support(), support)
    assert torch.equal(ours.enumerate_support(expand=False), theirs.enumerate_support(expand=False))
    assert_close(ours.log_prob(support), theirs.log_prob(support))
    assert ours.sample((2, 5), seed=0).shape == theirs.sample((2, 5)).shape
    assert not ours.has_rsample
    assert type(ours)(one_hot_logits(3, 4), rule=softdraw.ZGR()).has_rsample
    assert ours.has_enumerate_support
    assert ours.support.check(ours.sample((50,), seed=0)).all()


@pytest.mark.parametrize("make", [softdraw.OneHotCategorical, softdraw.Bernoulli])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(make, dtype):
    wide, narrow = (make(one_hot_logits(3, 4).to(dtype).to(d)) for d in (torch.float64, dtype))
    support = narrow.enumerate_support()
    for name in ("mean", "mode", "variance"):
        assert_close(getattr(narrow, name), getattr(wide, name).to(dtype))
    assert_close(narrow.entropy(), wide.entropy().to(dtype))
    assert_close(narrow.log_prob(support), wide.log_prob(support.double()).to(dtype))
    assert narrow.sample(seed=0).dtype == dtype


@pytest.mark.parametrize("make", [softdraw.OneHotCategorical, softdraw.Bernoulli])
def test_gradients_by_finite_differences(make):
    logits = one_hot_logits(3, 4).requires_grad_()
    support = make(logits).enumerate_support().detach()
    torch.autograd.gradcheck(lambda x: make(x).log_prob(support), logits)
    torch.autograd.gradcheck(lambda x: (make(x).entropy(), make(x).mean, make(x).variance), logits)
    torch.autograd.gradcheck(lambda x: kl_divergence(make(x), make(one_hot_logits(3, 4, seed=1))), logits)


def test_a_masked_law_is_the_smaller_law():
    logits = one_hot_logits(3, 4).requires_grad_()
    law, small = one_hot(logits, MASK), one_hot(logits[:, MASK])
    infinite = one_hot(logits.masked_fill(~MASK, -math.inf))
    for wide in (law, infinite):
        assert_close(wide.entropy(), small.entropy())
        assert_close(wide.probs[:, MASK], small.probs)
        assert not wide.probs[:, 1].any()
        assert not wide.variance[:, 1].any()
        assert not wide.mode[:, 1].any()
        log_p = wide.log_prob(wide.enumerate_support())
        assert (log_p[1] == -math.inf).all()
        assert_close(log_p[MASK], small.log_prob(small.enumerate_support()))
        assert not wide.sample((2000,), seed=0)[..., 1].any()
        (gradient,) = torch.autograd.grad(wide.entropy().sum() + log_p[MASK].sum(), logits, retain_graph=True)
        assert gradient.isfinite().all()
        assert not gradient[:, 1].any()
        assert gradient[:, MASK].any()


def test_a_masked_bit_is_off():
    logits = one_hot_logits(4).requires_grad_()
    for law in (softdraw.Bernoulli(logits, MASK), softdraw.Bernoulli(logits.masked_fill(~MASK, -math.inf))):
        free = softdraw.Bernoulli(logits)
        assert law.log_prob(torch.ones(4))[1] == -math.inf
        assert law.log_prob(torch.zeros(4))[1] == 0
        assert law.entropy()[1] == 0
        assert law.mean[1] == 0
        assert law.mode[1] == 0
        assert law.variance[1] == 0
        assert_close(law.entropy()[MASK], free.entropy()[MASK])
        assert not law.sample((1000,), seed=0)[:, 1].any()
        total = law.entropy() + law.log_prob(torch.zeros(4)) + law.mean + law.rsample(seed=1)
        (gradient,) = torch.autograd.grad(total.sum(), logits, retain_graph=True)
        assert gradient.isfinite().all()
        assert gradient[1] == 0


def test_a_row_with_nothing_allowed():
    logits = one_hot_logits(2, 4).requires_grad_()
    law = one_hot(logits, torch.tensor([[True], [False]]))
    assert not law.sample(seed=0)[1].any()
    assert not law.probs[1].any()
    assert not law.mode[1].any()
    assert law.entropy()[1] == 0
    assert law.log_prob(law.sample(seed=0))[1] == 0
    (gradient,) = torch.autograd.grad((law.entropy() + law.log_prob(law.sample(seed=0))).sum(), logits)
    assert gradient.isfinite().all()
    assert not gradient[1].any()


def test_a_certain_law():
    law = one_hot(torch.tensor([[0.0, -math.inf, -math.inf], [200.0, 0.0, -200.0]]))
    assert_close(law.entropy(), torch.zeros(2))
    assert_close(one_hot(torch.zeros(3, 1)).entropy(), torch.zeros(3))
    far = softdraw.Bernoulli(torch.tensor([-80.0, 80.0], dtype=torch.float64))
    assert_close(far.log_prob(torch.tensor([1.0, 0.0])), torch.tensor([-80.0, -80.0], dtype=torch.float64))
    assert_close(far.log_prob(torch.tensor([0.0, 1.0])), torch.full((2,), -math.exp(-80.0), dtype=torch.float64))


# KL


@pytest.mark.parametrize(("p", "p_torch"), pairs(), ids=["one-hot", "bernoulli"])
def test_kl_between_ours_and_torchs(p, p_torch):
    q_logits = one_hot_logits(3, 4, seed=1)
    q, q_torch = type(p)(q_logits), type(p_torch)(logits=q_logits)
    expected = kl_divergence(p_torch, q_torch)
    for first, second in ((p, q), (p, q_torch), (p_torch, q)):
        assert_close(kl_divergence(first, second), expected)
    joint = kl_divergence(Independent(p, 1), Independent(q, 1))
    assert_close(joint, expected.sum(-1))


def test_kl_to_the_uniform_is_what_the_entropy_lacks():
    for law, states in ((one_hot(), 4.0), (one_hot(mask=MASK), 3.0), (softdraw.Bernoulli(one_hot_logits(5)), 2.0)):
        assert_close(kl_divergence(law, law.uniform()), math.log(states) - law.entropy())
        assert_close(law.uniform().entropy(), torch.full_like(law.entropy(), math.log(states)))


def test_kl_and_masks():
    logits = one_hot_logits(3, 4).requires_grad_()
    free, masked = one_hot(logits), one_hot(logits, MASK)
    assert (kl_divergence(free, masked) == math.inf).all()
    inside = kl_divergence(masked, free)
    assert_close(inside, -free.probs[:, MASK].sum(-1).log())  # the mass that the mask keeps
    assert torch.autograd.grad(inside.sum(), logits)[0].isfinite().all()
    off = softdraw.Bernoulli(torch.zeros(1), torch.tensor([False]))
    assert_close(kl_divergence(off, softdraw.Bernoulli(torch.zeros(1))), torch.tensor([math.log(2.0)]))
    assert kl_divergence(softdraw.Bernoulli(torch.zeros(1)), off) == math.inf


# Sampling


def test_law_of_the_samples():
    law = softdraw.OneHotCategorical(torch.tensor([2.0, 0.0, -1.0, 0.5]), MASK)
    counts = law.sample((200_000,), seed=1).sum(0)
    assert counts[1] == 0
    assert chisquare(counts[MASK], 200_000 * law.probs[MASK].double() / law.probs.double().sum()).pvalue > 1e-3
    bits = softdraw.Bernoulli(torch.tensor([1.5]))
    ones = bits.sample((200_000,), seed=2).sum()
    assert abs(ones / 200_000 - bits.mean) < 4 * (bits.variance / 200_000).sqrt()


def test_sampling_follows_seed_generator_and_rows():
    law = one_hot(torch.zeros(40, 8))
    assert torch.equal(law.sample((3,), seed=1)[0], law.sample(seed=1))
    assert not torch.equal(law.sample((3,), seed=1)[1], law.sample(seed=1))
    assert torch.equal(law.sample(seed=1, rows=10)[:-10], law.sample(seed=1)[10:])
    a = law.sample(generator=torch.Generator().manual_seed(1))
    assert torch.equal(law.sample(generator=torch.Generator().manual_seed(1)), a)
    index = softdraw.gumbel_max(torch.zeros(40, 8), seed=1)
    assert torch.equal(law.sample(seed=1).argmax(-1), index)


def test_rsample_has_the_laws_rule():
    logits, w = one_hot_logits(3, 4).requires_grad_(), one_hot_logits(3, 4, seed=1)
    for rule in (softdraw.ZGR(), softdraw.ReinMax(1.3), softdraw.GumbelRao(0.5, 3)):
        law = softdraw.OneHotCategorical(logits, rule=rule)
        for made in (law, law.expand((3,))):
            (ours,) = torch.autograd.grad(made.rsample(seed=1), logits, w)
            (drawn,) = torch.autograd.grad(softdraw.draw(one_hot(logits), rule, seed=1), logits, w)
            assert torch.equal(ours, drawn)
    (default,) = torch.autograd.grad(one_hot(logits).rsample(seed=1), logits, w)
    (zgr,) = torch.autograd.grad(softdraw.draw(one_hot(logits), softdraw.ZGR(), seed=1), logits, w)
    assert torch.equal(default, zgr)
    with pytest.raises(TypeError, match="rule must be a pathwise rule"):
        softdraw.OneHotCategorical(logits, rule=softdraw.LeaveOneOut(4))


# Idioms of torch.distributions


@pytest.mark.parametrize(("ours", "theirs"), pairs(), ids=["one-hot", "bernoulli"])
def test_expand_and_independent(ours, theirs):
    wide, wide_torch = ours.expand((5, 3, *ours.batch_shape[1:])), theirs.expand((5, 3, *theirs.batch_shape[1:]))
    x = wide_torch.sample()
    assert type(wide) is type(ours)
    assert wide.batch_shape == wide_torch.batch_shape
    assert_close(wide.log_prob(x), wide_torch.log_prob(x))
    draws = wide.sample(seed=0)
    assert not torch.equal(draws[0], draws[1])  # the copies are independent
    joint, joint_torch = Independent(wide, 1), Independent(wide_torch, 1)
    assert_close(joint.log_prob(x), joint_torch.log_prob(x))
    assert_close(joint.entropy(), joint_torch.entropy())
    assert joint.expand((2, *joint.batch_shape)).sample().shape == (2, *x.shape)
    assert joint.rsample((7,)).shape == (7, *x.shape)


def test_masked_law_expands_with_its_mask():
    law = one_hot(mask=MASK).expand((6, 3))
    assert not law.sample((200,), seed=0)[..., 1].any()
    assert not softdraw.Bernoulli(torch.zeros(4), MASK).expand((6, 4)).sample((200,), seed=0)[..., 1].any()


def test_transformed_distribution():
    ours, theirs = pairs()[0]
    shift = distributions.transforms.AffineTransform(1.0, 2.0, event_dim=1)
    x = 2 * theirs.sample() + 1
    found = TransformedDistribution(ours, [shift])
    assert_close(found.log_prob(x), TransformedDistribution(theirs, [shift], validate_args=False).log_prob(x))
    values = found.rsample((100,)).unique()
    assert_close(values, torch.tensor([1.0, 3.0], dtype=torch.float64))


def test_value_checks_are_asked_for():
    law = softdraw.OneHotCategorical(torch.zeros(2, 3), validate_args=True)
    with pytest.raises(ValueError, match="within the support"):
        law.log_prob(torch.full((2, 3), 0.5))
    with pytest.raises(ValueError, match=r"value must end in the event shape \(3,\).*one_hot"):
        softdraw.OneHotCategorical(torch.zeros(2, 3)).log_prob(torch.tensor([1, 2]))
    with pytest.raises(TypeError, match="logits must be floating point"):
        softdraw.Bernoulli(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="mask of shape"):
        softdraw.Bernoulli(torch.zeros(3), torch.ones(2, dtype=torch.bool))


def test_repr_and_scalar_bit():
    assert "OneHotCategorical" in repr(one_hot())
    law = softdraw.Bernoulli(torch.tensor(0.7), torch.tensor(True))
    assert law.batch_shape == ()
    assert law.sample((4,), seed=0).shape == (4,)
    assert_close(law.log_prob(torch.tensor(1.0)), torch.tensor(0.7).sigmoid().log())
