"""What the laws take: values that broadcast, other dtypes, numbers of numpy, empty batches, rows without a law."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from bad_values import META
from test_laws_errors import _validation, first  # noqa: F401 (a fixture)
from torch import distributions as td
from torch.testing import assert_close

import softdraw

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
ZGR, RELAXED = softdraw.ZGR(), softdraw.RelaxedOneHotCategorical(0.7, X)
LAWS = {"one-hot": softdraw.OneHotCategorical(X), "bits": softdraw.Bernoulli(X), "relaxed": RELAXED}
EVENTS = {"one-hot": softdraw.OneHotCategorical, "relaxed": partial(softdraw.RelaxedOneHotCategorical, 0.7)}
MAKE = {**EVENTS, "bits": softdraw.Bernoulli}
NAN, INF = math.nan, math.inf


def test_values_broadcast_with_the_batch():
    """As torch's: a support that is not expanded, one sample for all rows, and a batch of laws for one sample."""
    for ours, theirs in ((LAWS["one-hot"], td.OneHotCategorical(logits=X)), (LAWS["bits"], td.Bernoulli(logits=X))):
        for value in (
            ours.enumerate_support(expand=False),
            ours.enumerate_support(),
            ours.sample(seed=0)[:1],
            ours.sample((2,), seed=0),
        ):
            assert_close(ours.log_prob(value), theirs.log_prob(value))
        one, other = ours[:1], type(theirs)(logits=X[:1])
        assert_close(one.log_prob(ours.sample(seed=1)), other.log_prob(ours.sample(seed=1)))
    masked = softdraw.OneHotCategorical(X, torch.tensor([True, False, True, True]))
    assert_close(masked.log_prob(masked.enumerate_support(expand=False)).exp().sum(0), torch.ones(3))
    y = RELAXED.sample(seed=0)
    assert_close(RELAXED.log_prob(y[:1])[0], RELAXED.log_prob(y)[0])


def test_values_of_other_dtypes_are_taken():
    for kind in ("one-hot", "bits"):
        law, value = LAWS[kind], LAWS[kind].sample(seed=0)
        for dtype in (torch.int64, torch.bool, torch.float64, torch.bfloat16, torch.float8_e5m2):
            assert torch.equal(law.log_prob(value.to(dtype)), law.log_prob(value))
            assert torch.equal(law.rsample(value=value.to(dtype)), value)


def test_numbers_of_numpy_count_as_numbers():
    law, two = LAWS["one-hot"], np.int64(2)
    assert torch.equal(law.sample((two,), seed=np.int32(1), rows=two), law.sample((2,), seed=1, rows=2))
    assert torch.equal(law[two].theta, law[2].theta)
    assert torch.equal(law[np.array([True, False, True])].theta, law[[0, 2]].theta)
    assert law.expand((two, np.int32(3))).batch_shape == (2, 3)
    relaxed = softdraw.RelaxedOneHotCategorical(np.float32(0.5), X)
    assert torch.equal(relaxed.sample(seed=1), softdraw.RelaxedOneHotCategorical(0.5, X).sample(seed=1))
    assert softdraw.expect(first, law, ZGR, samples=two, seed=0).shape == (3,)
    assert softdraw.Reinforce(baseline=np.float64(0.5)) == softdraw.Reinforce(baseline=0.5)


def test_a_list_of_bools_is_a_mask_of_the_batch():
    """A nested one takes as many dimensions as it has: it never reaches the categories."""
    keep = [[True, False], [True, True], [False, False]]
    law = softdraw.OneHotCategorical(torch.randn(3, 2, 4))
    assert torch.equal(law[keep].theta, law.theta[torch.tensor(keep)])
    with pytest.raises(IndexError, match="indexed by its batch"):
        LAWS["one-hot"][[[True] * 4] * 3]
    with pytest.raises(IndexError, match="indexed by its batch"):
        LAWS["one-hot"][np.ones((3, 4), bool)]


def test_empty_batches_and_laws_without_values():
    for make in MAKE.values():
        law = make(torch.zeros(0, 4))
        y = law.sample((2,))
        assert y.shape == (2, 0, 4)
        assert law.log_prob(y).shape == (2, *law.batch_shape)
        assert law.expand((5, *law.batch_shape)).batch_shape == (5, *law.batch_shape)
        nowhere = make(META)
        assert nowhere.log_prob(META).is_meta
        assert nowhere.probs.is_meta
    assert softdraw.OneHotCategorical(META).sample((2,)).shape == (2, 3, 4)
    assert softdraw.expect(first, softdraw.OneHotCategorical(torch.zeros(0, 4)), ZGR).shape == (0,)


def test_a_row_of_zero_probabilities_allows_nothing():
    for kind, make in EVENTS.items():
        law = make(probs=torch.tensor([[0.0, 0.0], [0.0, 2.0]]))
        assert torch.equal(law.probs, torch.tensor([[0.0, 0.0], [0.0, 1.0]])), kind
        assert torch.equal(law.sample(seed=0), law.probs), kind
        with pytest.raises(ValueError, match="their sum must be finite"):
            make(probs=torch.full((3, 4), 3e38))


def test_nan_stays_in_its_row():
    bad = X.clone()
    bad[1] = NAN
    rest = [0, 2]
    for kind, make in MAKE.items():
        law = make(bad)
        y = law.sample(seed=0)
        assert y[1].isnan().all()
        assert torch.equal(y[rest], LAWS[kind].sample(seed=0)[rest]) or kind == "relaxed"
        found = law.log_prob(torch.where(y.isnan(), 1.0, y))
        assert found[1].isnan().all()
        assert found[rest].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
@pytest.mark.parametrize("categories", [3, 50_000])
def test_relaxed_samples_are_on_the_simplex_of_their_dtype(dtype, categories):
    """A narrow sample sums to one up to its rounding only; torch's tolerance of 1e-6 refused our own samples."""
    law = softdraw.RelaxedOneHotCategorical(1.0, torch.randn(8, categories).to(dtype), validate_args=True)
    assert law.log_prob(law.sample(seed=0)).shape == (8,)
    with pytest.raises(ValueError, match="support"):
        law.log_prob(1.5 * law.sample(seed=0).float())


def test_a_relaxed_law_says_what_it_is():
    assert repr(RELAXED) == "RelaxedOneHotCategorical(tau=0.7, logits of shape (3, 4))"
    each = softdraw.RelaxedOneHotCategorical(torch.ones(3), X, torch.tensor([True, True, True, False]))
    assert repr(each) == "RelaxedOneHotCategorical(tau=of shape (3,), logits of shape (3, 4), masked)"


def test_a_control_that_does_not_see_the_sample_is_no_control():
    """Its slope is zero, and the estimator is REINFORCE with a constant baseline."""
    level = torch.tensor(0.3, requires_grad=True)
    leaf = X.clone().requires_grad_()
    law = softdraw.OneHotCategorical(leaf)
    rule = softdraw.Relax(control=lambda y: level.expand(y.shape[:-1]), samples=3)
    (found,) = torch.autograd.grad(softdraw.expect(first, law, rule, seed=0).sum(), leaf)
    baseline = softdraw.expect(first, law, softdraw.Reinforce(baseline=0.3, samples=3), seed=0)
    assert_close(found, torch.autograd.grad(baseline.sum(), leaf)[0])
