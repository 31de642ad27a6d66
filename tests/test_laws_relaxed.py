"""The concrete law: its density against torch's and against quadrature, its sampler, low temperatures, batch shapes."""

import math

import pytest
import torch
from scipy.stats import kstest
from torch import distributions
from torch.distributions import Independent, TransformedDistribution
from torch.testing import assert_close

import softdraw
from tests.methods import one_hot_logits

MASK = torch.tensor([True, False, True, True])


@pytest.mark.parametrize("tau", [0.4, 1.0, 3.0])
def test_density_is_torchs(tau):
    logits = one_hot_logits(3, 4)
    ours = softdraw.RelaxedOneHotCategorical(tau, logits)
    theirs = distributions.RelaxedOneHotCategorical(torch.tensor(tau, dtype=torch.float64), logits=logits)
    y = theirs.sample((5,))
    assert_close(ours.log_prob(y), theirs.log_prob(y))
    assert_close(ours.log_prob_log(y.log()), theirs.base_dist.log_prob(y.log()))


def test_density_integrates_to_one():
    # K = 2: y = (1 - t, t), and dt is the density's measure.
    t = torch.linspace(0, 1, 2_000_001, dtype=torch.float64)[1:-1]
    law = softdraw.RelaxedOneHotCategorical(0.7, torch.tensor([0.4, -0.3], dtype=torch.float64))
    assert_close(
        law.log_prob(torch.stack([1 - t, t], -1)).exp().mean(),
        torch.tensor(1.0, dtype=torch.float64),
        atol=1e-4,
        rtol=0,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tau", [1.0, 0.1, 0.05, 0.01, 1e-3])
def test_finite_on_its_own_samples(tau, dtype):
    law = softdraw.RelaxedOneHotCategorical(tau, one_hot_logits(2000, 10, dtype=dtype))
    y = law.rsample(seed=0)
    log_y = law.rsample_log(seed=0)
    assert y.dtype == dtype
    assert y.isfinite().all()
    assert log_y.isfinite().all()
    assert log_y.min() < -1 / tau
    assert_close(log_y.exp().to(dtype), y)
    assert law.log_prob_log(log_y).isfinite().all()
    assert law.log_prob(y).isfinite().all()
    assert distributions.constraints.simplex.check(y.double() / y.double().sum(-1, keepdim=True)).all()


def test_low_temperature_density_in_log_space_is_exact():
    # float32 in log space against float64, where y itself has long underflowed
    logits = one_hot_logits(500, 6)
    wide, narrow = (softdraw.RelaxedOneHotCategorical(0.01, logits.to(d)) for d in (torch.float64, torch.float32))
    log_y = wide.rsample_log(seed=1)
    assert (log_y.exp().float() == 0).any(-1).float().mean() > 0.9
    assert_close(narrow.log_prob_log(log_y.float()).double(), wide.log_prob_log(log_y), rtol=1e-4, atol=1e-3)


def test_sampler_has_the_law():
    n, logits = 100_000, torch.tensor([0.3, -0.5], dtype=torch.float64)
    for dtype in (torch.float64, torch.bfloat16):
        law = softdraw.RelaxedOneHotCategorical(0.5, logits.to(dtype).expand(n, 2))
        log_y = law.rsample_log(seed=3)
        difference = (logits.to(dtype)[1] - logits.to(dtype)[0].double()).item()
        logistic = 0.5 * (log_y[:, 1] - log_y[:, 0]) - difference
        assert kstest(logistic.double().numpy(), "logistic").pvalue > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_does_not_favour_the_first_classes(dtype):
    # torch's own puts 98.1 % (bf16) and 59.7 % (fp16) of the argmax into the first half of 1000 equal classes
    log_y = softdraw.RelaxedOneHotCategorical(0.5, torch.zeros(8_000, 1000, dtype=dtype)).rsample_log(seed=0)
    first = (log_y.argmax(-1) < 500).double().mean()
    assert abs(first - 0.5) < 4 * 0.5 / 8_000**0.5


def test_gradients():
    logits, tau = one_hot_logits(3, 4).requires_grad_(), torch.rand(3, dtype=torch.float64) + 0.3
    tau.requires_grad_()
    value = softdraw.RelaxedOneHotCategorical(tau, logits).rsample(seed=0).detach()
    for call in (
        lambda x, t: softdraw.RelaxedOneHotCategorical(t, x).log_prob(value),
        lambda x, t: softdraw.RelaxedOneHotCategorical(t, x).log_prob_log(value.log()),
        lambda x, t: softdraw.RelaxedOneHotCategorical(t, x).rsample(seed=0),
        lambda x, t: softdraw.RelaxedOneHotCategorical(t, x).rsample_log((2,), seed=0),
    ):
        torch.autograd.gradcheck(call, (logits, tau))


def test_masked_is_the_smaller_law():
    logits = one_hot_logits(50, 4).requires_grad_()
    law = softdraw.RelaxedOneHotCategorical(0.7, logits, MASK)
    small = softdraw.RelaxedOneHotCategorical(0.7, logits[:, MASK])
    y, log_y = law.rsample(seed=0), law.rsample_log(seed=0)
    assert not y[:, 1].any()
    assert (log_y[:, 1] == -math.inf).all()
    assert_close(law.log_prob(y), small.log_prob(y[:, MASK]))
    assert_close(law.log_prob_log(log_y), small.log_prob_log(log_y[:, MASK]))
    total = law.log_prob(y).sum() + law.log_prob_log(log_y).sum()
    (gradient,) = torch.autograd.grad(total, logits)
    assert gradient.isfinite().all()
    assert not gradient[:, 1].any()


def test_tau_broadcasts_as_a_batch_shape():
    logits = one_hot_logits(3, 4)
    per_row = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)
    for tau, batch in ((0.5, (3,)), (torch.tensor(0.5), (3,)), (per_row, (3,)), (per_row.expand(7, 3), (7, 3))):
        law = softdraw.RelaxedOneHotCategorical(tau, logits)
        assert law.batch_shape == batch
        y = law.rsample((2,), seed=0)
        assert y.shape == (2, *batch, 4)
        assert law.log_prob(y).shape == (2, *batch)
    law = softdraw.RelaxedOneHotCategorical(per_row, logits)
    for i in range(3):
        one = softdraw.RelaxedOneHotCategorical(per_row[i].item(), logits[i])
        assert_close(law.log_prob(y[0, 0])[i], one.log_prob(y[0, 0, i]))
        assert_close(law.rsample(seed=1)[i], one.rsample(seed=1, rows=i))
    five = softdraw.RelaxedOneHotCategorical(torch.rand(5) + 0.1, logits[0])
    assert five.batch_shape == (5,)
    with pytest.raises(ValueError, match=r"write tau\.squeeze\(-1\)"):
        softdraw.RelaxedOneHotCategorical(per_row.unsqueeze(-1), logits)
    with pytest.raises(ValueError, match="does not broadcast with the batch"):
        softdraw.RelaxedOneHotCategorical(torch.ones(2), logits)
    with pytest.raises(ValueError, match="tau must be positive"):
        softdraw.RelaxedOneHotCategorical(0.0, logits)


def test_idioms():
    law = softdraw.RelaxedOneHotCategorical(0.5, one_hot_logits(3, 4))
    wide = law.expand((5, 3))
    y = wide.rsample(seed=0)
    assert_close(wide.log_prob(y), law.log_prob(y))
    assert torch.equal(wide.sample(seed=0), y)
    assert_close(Independent(wide, 1).log_prob(y), law.log_prob(y).sum(-1))
    theirs = distributions.RelaxedOneHotCategorical(torch.tensor(0.5, dtype=torch.float64), logits=one_hot_logits(3, 4))
    to_log = distributions.transforms.ExpTransform().inv
    found = TransformedDistribution(law, [distributions.transforms.IndependentTransform(to_log, 1)])
    x = y[0].log()
    expected = TransformedDistribution(theirs, [distributions.transforms.IndependentTransform(to_log, 1)])
    assert_close(found.log_prob(x), expected.log_prob(x))
    assert_close(found.log_prob(x), law.log_prob_log(x))
