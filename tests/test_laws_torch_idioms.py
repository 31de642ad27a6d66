"""Our laws where code expects torch's: the same subclass, wrapper or call on both, and the same numbers."""

import copy
import pickle

import pytest
import torch
from torch import distributions as td
from torch.testing import assert_close

import softdraw

MASK = torch.tensor([True, False, True, True])


def logits(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The pattern of world models: a law with categories mixed with the uniform one, and straight-through samples.


def unimix(base):
    class Unimix(base):
        def __init__(self, logits=None, probs=None, ratio=0.0):
            if logits is not None and ratio > 0:
                p = torch.softmax(logits, -1) * (1 - ratio) + ratio / logits.shape[-1]
                super().__init__(logits=torch.log(p), probs=None)
            else:
                super().__init__(logits=logits, probs=probs)

        def mode(self):
            one_hot = torch.nn.functional.one_hot(super().logits.argmax(-1), super().logits.shape[-1])
            return one_hot + super().logits - super().logits.detach()

        def most_likely(self):
            return super().mode

        def sample(self, sample_shape=()):
            hard = super().sample(sample_shape).detach()
            return hard + (super().probs - super().probs.detach())

    return Unimix


OURS, THEIRS = unimix(softdraw.OneHotCategorical), unimix(td.OneHotCategorical)


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.3])
def test_a_unimix_straight_through_subclass_is_as_on_torchs(ratio):
    x, w = logits(5, 4), logits(5, 4, seed=1)
    found = []
    for kind in (OURS, THEIRS):
        leaf = x.clone().requires_grad_()
        law = kind(leaf, ratio=ratio)
        value = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 3, 0]]
        sample = law.sample((3,))
        assert ((sample.detach() > 0.5).sum(-1) == 1).all()
        values = law.logits, law.probs, law.mean, law.mode(), law.entropy(), law.log_prob(value)
        (mode_gradient,) = torch.autograd.grad((law.mode() * w).sum(), leaf, retain_graph=True)
        (sample_gradient,) = torch.autograd.grad((sample * w).sum(), leaf, retain_graph=True)
        (log_prob_gradient,) = torch.autograd.grad(law.log_prob(value).sum(), leaf)
        gradients = mode_gradient, sample_gradient, log_prob_gradient
        found.append([v.detach() for v in (*values, law.most_likely().double(), *gradients)])
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs)


def test_a_unimix_subclass_of_probabilities():
    p = logits(5, 4).softmax(-1)
    assert_close(OURS(probs=p).logits, THEIRS(probs=p).logits)
    assert_close(OURS(probs=p).mode(), THEIRS(probs=p).mode())


def test_independent_subclasses_have_torchs_divergence():
    x, y = logits(2, 5, 4), logits(2, 5, 4, seed=1)
    ours, theirs = (td.Independent(kind(x, ratio=0.01), 1) for kind in (OURS, THEIRS))
    free, torchs_free = (td.Independent(kind(y, ratio=0.01), 1) for kind in (OURS, THEIRS))
    exact = td.kl_divergence(theirs, torchs_free)
    for q in (free, torchs_free):
        assert_close(td.kl_divergence(ours, q), exact)
    assert_close(td.kl_divergence(theirs, free), exact)
    assert_close(ours.entropy(), theirs.entropy())
    sample = td.Independent(softdraw.OneHotCategorical(x), 1).sample()
    assert_close(ours.log_prob(sample), theirs.log_prob(sample))
    assert_close(ours.mean, theirs.mean)
    bits, torchs_bits = td.Independent(softdraw.Bernoulli(x), 2), td.Independent(td.Bernoulli(logits=x), 2)
    other = td.Independent(td.Bernoulli(logits=y), 2)
    assert_close(td.kl_divergence(bits, other), td.kl_divergence(torchs_bits, other))


PAIRS = {
    "one-hot": (softdraw.OneHotCategorical(logits(3, 4)), td.OneHotCategorical(logits=logits(3, 4))),
    "bits": (softdraw.Bernoulli(logits(3, 4)), td.Bernoulli(logits=logits(3, 4))),
}
SMOOTH = {
    "relaxed": (
        softdraw.RelaxedOneHotCategorical(0.7, logits(3, 4)),
        td.RelaxedOneHotCategorical(torch.tensor(0.7, dtype=torch.float64), logits=logits(3, 4)),
    ),
}
each_pair = pytest.mark.parametrize(("ours", "theirs"), PAIRS.values(), ids=PAIRS)
every_pair = pytest.mark.parametrize(("ours", "theirs"), (PAIRS | SMOOTH).values(), ids=PAIRS | SMOOTH)


@each_pair
def test_what_torch_derives_from_a_law(ours, theirs):
    for name in ("mean", "stddev", "variance", "probs", "logits", "mode"):
        assert_close(getattr(ours, name), getattr(theirs, name))
    assert_close(ours.perplexity(), theirs.perplexity())
    assert_close(ours.enumerate_support(), theirs.enumerate_support())
    assert_close(ours.enumerate_support(expand=False), theirs.enumerate_support(expand=False))


@every_pair
def test_shapes_support_and_constraints_are_torchs(ours, theirs):
    for name in ("batch_shape", "event_shape", "param_shape"):
        if hasattr(theirs, name):
            assert getattr(ours, name) == getattr(theirs, name)
    assert type(ours.support) is type(theirs.support)
    assert ours.has_enumerate_support == theirs.has_enumerate_support
    assert ours.has_rsample == theirs.has_rsample
    sample = ours.sample()
    assert ours.support.check(sample).all()
    assert ours.support.check(sample).shape == theirs.support.check(sample).shape
    for name, constraint in ours.arg_constraints.items():
        assert constraint.check(getattr(ours, name)).all()


@every_pair
def test_copies_are_the_same_law(ours, theirs):
    value = ours.sample(seed=5)
    for again in (copy.copy(ours), copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert type(again) is type(ours)
        assert torch.equal(again.sample((2,), seed=1), ours.sample((2,), seed=1))
        assert torch.equal(again.log_prob(value), ours.log_prob(value))
        assert again.theta is not ours.theta or copy.copy(ours).theta is ours.theta


@every_pair
def test_transformed_and_mixed_laws_are_torchs(ours, theirs):
    value = ours.sample(seed=0)
    affine = td.AffineTransform(loc=1.0, scale=2.0, event_dim=len(ours.event_shape))
    moved, torchs = (td.TransformedDistribution(law, [affine], validate_args=False) for law in (ours, theirs))
    assert_close(moved.log_prob(1 + 2 * value), torchs.log_prob(1 + 2 * value))
    assert moved.sample((5,)).shape == (5, 3, 4)
    weights = td.Categorical(logits=logits(*ours.batch_shape))
    mixed, mixture = (td.MixtureSameFamily(weights, law) for law in (ours, theirs))
    value = value[..., 0, :] if ours.event_shape else value[..., 0]
    assert_close(mixed.log_prob(value), mixture.log_prob(value))
    assert mixed.sample((5,)).shape == mixture.sample((5,)).shape
    if ours.has_enumerate_support:
        assert_close(mixed.mean, mixture.mean)


@every_pair
def test_validate_args_of_the_constructor_holds_under_expand(ours, theirs):
    bad = torch.full((3, 4), 0.3, dtype=torch.float64)  # no one-hot, no bit, and its sum is no 1
    make = {
        softdraw.OneHotCategorical: lambda v: softdraw.OneHotCategorical(logits(3, 4), validate_args=v),
        softdraw.Bernoulli: lambda v: softdraw.Bernoulli(logits(3, 4), validate_args=v),
        softdraw.RelaxedOneHotCategorical: lambda v: softdraw.RelaxedOneHotCategorical(
            0.7, logits(3, 4), validate_args=v
        ),
    }[type(ours)]
    default = td.Distribution._validate_args
    try:
        for setting in (True, False):
            td.Distribution.set_default_validate_args(setting)
            for law in (make(True), make(True).expand((2, *ours.batch_shape))):
                with pytest.raises(ValueError, match="support"):
                    law.log_prob(bad)
            for law in (make(False), make(False).expand((2, *ours.batch_shape))):
                assert law.log_prob(bad).shape == law.batch_shape
            law = make(None).expand((2, *ours.batch_shape))
            if setting:
                with pytest.raises(ValueError, match="support"):
                    law.log_prob(bad)
            else:
                assert law.log_prob(bad).shape == law.batch_shape
    finally:
        td.Distribution.set_default_validate_args(default)


@every_pair
def test_the_name_mask_is_free(ours, theirs):
    assert not hasattr(ours, "mask")

    class Mine(type(ours)):
        def mask(self, keep):
            return self, keep

    law = Mine(0.7, logits(4), MASK) if "Relaxed" in type(ours).__name__ else Mine(logits(4), MASK)
    assert law.mask(True) == (law, True)
    assert law.expand((2, *law.batch_shape)).mask(1)[1] == 1


def test_positional_arguments_are_logits_first():
    """As the docstrings say: torch's first is probs."""
    x = logits(4).exp()
    assert_close(softdraw.OneHotCategorical(x).probs, td.OneHotCategorical(logits=x).probs)
    assert_close(softdraw.Bernoulli(x).probs, td.Bernoulli(logits=x).probs)
    assert_close(softdraw.OneHotCategorical(probs=x).probs, td.OneHotCategorical(x).probs)
    for law in (softdraw.OneHotCategorical, softdraw.Bernoulli):
        assert "first positional argument is ``logits``; torch's is ``probs``" in law.__doc__


def test_a_relaxed_law_under_vmap_and_compile():
    """The check of tau's values, which reads them, is left out where nothing may be read."""
    x, tau = logits(3, 4), torch.tensor([0.5, 0.7, 2.0], dtype=torch.float64)
    value = softdraw.RelaxedOneHotCategorical(tau, x).sample(seed=0)
    expected = softdraw.RelaxedOneHotCategorical(tau, x).log_prob(value)

    def log_prob(tau, x, value):
        return softdraw.RelaxedOneHotCategorical(tau, x).log_prob(value)

    assert_close(torch.vmap(log_prob)(tau, x, value), expected)
    number = torch.vmap(lambda x, value: log_prob(0.7, x, value))(x, value)
    assert_close(number, softdraw.RelaxedOneHotCategorical(0.7, x).log_prob(value))
    default = td.Distribution._validate_args
    try:
        compiled = torch.compile(log_prob, fullgraph=True, backend="eager")
        assert_close(compiled(tau, x, value), expected)
    finally:
        td.Distribution.set_default_validate_args(default)  # torch.compile turns it off


def test_the_documented_differences_from_torch():
    """docs/other-libraries.md has them in a table."""
    never, never_torchs = (
        law(probs=torch.tensor([0.0, 1.0])) for law in (softdraw.OneHotCategorical, td.OneHotCategorical)
    )
    zero = torch.tensor([1.0, 0.0])
    assert never.log_prob(zero) == -torch.inf
    assert_close(never_torchs.log_prob(zero).item(), -15.9, rtol=0, atol=0.05)
    nothing = torch.zeros(2)
    assert not softdraw.OneHotCategorical(probs=nothing).sample().any()
    with pytest.raises(ValueError, match="probs"):
        td.OneHotCategorical(probs=nothing, validate_args=True)
    assert td.Categorical(probs=nothing, validate_args=False).probs.isnan().all()
    half = torch.tensor([0.5])
    assert softdraw.Bernoulli(probs=half).mode == 0
    assert td.Bernoulli(probs=half).mode.isnan()
    bad = torch.tensor([float("nan"), 0.0])
    assert softdraw.OneHotCategorical(bad).probs.isnan().all()
    for law in (softdraw.OneHotCategorical, td.OneHotCategorical):
        with pytest.raises(ValueError, match=r"logits|probs"):
            law(logits=bad, validate_args=True)


def test_a_relaxed_value_off_the_face_of_a_mask_has_no_density():
    law = softdraw.RelaxedOneHotCategorical(0.7, logits(4), MASK)
    on, off = torch.tensor([[0.2, 0.0, 0.5, 0.3], [0.2, 0.1, 0.4, 0.3]], dtype=torch.float64)
    face = td.RelaxedOneHotCategorical(torch.tensor(0.7, dtype=torch.float64), logits=logits(4)[MASK])
    assert_close(law.log_prob(on), face.log_prob(on[MASK]))
    assert law.log_prob(off) == law.log_prob_log(off.log()) == -torch.inf
    log_y = law.rsample_log((50,), seed=0)
    assert log_y[:, 1].max() == -torch.inf
    assert law.log_prob_log(log_y).isfinite().all()
    assert law.log_prob(law.sample((50,), seed=0)).isfinite().all()
