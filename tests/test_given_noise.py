"""Noise given an outcome, and the noise of rules besides that of the draw."""

import math

import pytest
import scipy.stats
import torch

import softdraw
from softdraw.rules.conditional_noise import Noise
from tests.methods import label

LOGITS = torch.tensor([1.0, -2.0, 0.5, -math.inf, 3.0])


def test_noise_given_an_index_has_its_law():
    """Over indices of the law it is Gumbel noise again; given one, its maximum is Gumbel(log Z), wherever it is."""
    n = 40_000
    x = LOGITS.double().expand(n, 5)
    index = softdraw.gumbel_max(x, seed=1)
    g = softdraw.gumbel_noise((n, 5), seed=1, logits=x, index=index, dtype=torch.float64)
    assert torch.equal((x + g).argmax(-1), index)
    for column in range(5):
        assert scipy.stats.kstest(g[:, column].numpy(), "gumbel_r").pvalue > 1e-3
    assert torch.corrcoef(g.T).sub(torch.eye(5)).abs().max() < 4.5 / math.sqrt(n)
    for given in (1, 4):
        at = torch.tensor(given)
        s = x + softdraw.gumbel_noise((n, 5), seed=2, logits=LOGITS.double(), index=at, dtype=torch.float64)
        assert (s.argmax(-1) == given).all()
        assert scipy.stats.kstest((s.amax(-1) - LOGITS.double().logsumexp(-1)).numpy(), "gumbel_r").pvalue > 1e-3


def test_noise_given_an_index_equals_rejection():
    """The noise of those draws whose index came out right, compared column by column."""
    n, x = 60_000, torch.tensor([0.3, -0.5, 1.0]).double()
    g = softdraw.gumbel_noise((n, 3), seed=5, dtype=torch.float64)
    chosen = g[(x + g).argmax(-1) == 1]
    given = softdraw.gumbel_noise((len(chosen), 3), seed=6, logits=x, index=torch.tensor(1), dtype=torch.float64)
    for column in range(3):
        assert scipy.stats.ks_2samp(chosen[:, column].numpy(), given[:, column].numpy()).pvalue > 1e-3


def test_noise_given_an_index_at_corners():
    index = torch.tensor([-1, 2])
    g = softdraw.gumbel_noise((2, 5), seed=3, logits=LOGITS + 1e4, index=index)
    assert g.isfinite().all()
    assert (LOGITS + g)[1].argmax() == 2
    far = softdraw.gumbel_noise((1, 2), seed=3, logits=torch.tensor([[0.0, 200.0]]), index=torch.tensor([0]))
    assert far[0, 0] > 190 + far[0, 1]
    leaf = LOGITS[:3].clone().double().requires_grad_()
    make = lambda x: softdraw.gumbel_noise((3,), seed=3, logits=x, index=torch.tensor(1), dtype=torch.float64)  # noqa: E731
    assert torch.autograd.gradcheck(make, leaf)


@pytest.mark.parametrize(
    "rule", [softdraw.StraightThroughGumbel(tau=0.7), softdraw.GumbelRao(tau=0.7, samples=3)], ids=label
)
def test_a_given_sample_of_the_same_seed_shares_no_noise(rule):
    """The gradient given a sample has the same mean whether the sample was drawn with this seed or with another."""
    n = 40_000
    x = torch.tensor([0.5, -0.5, 0.2]).double()
    weights = torch.tensor([1.0, 0.0, -1.0]).double()
    means = []
    for seed in (1, 2):
        leaf = x.expand(n, 3).clone().requires_grad_()
        law = softdraw.OneHotCategorical(leaf)
        y = softdraw.draw(law, rule, value=softdraw.OneHotCategorical(x.expand(n, 3)).sample(seed=1), seed=seed)
        (y * weights).sum().backward()
        means.append((leaf.grad.mean(0), leaf.grad.std(0) / math.sqrt(n)))
    (a, error), (b, other) = means
    assert ((a - b).abs() < 4 * (error**2 + other**2).sqrt()).all()


def test_the_noise_of_rules_is_that_of_no_draw():
    """Block 1 of 10 categories was once columns 10 to 19 of a draw of 20 categories."""
    drawn = set(softdraw.gumbel_noise((1, 1, 80), seed=0).flatten().tolist())
    for width in (10, 20):
        noise_of_rules = Noise(torch.tensor(0), torch.zeros(1, 1, 1).long(), True)
        made = noise_of_rules.more(torch.zeros(1, 1, width), 0, 4)
        assert not drawn & set(made.flatten().tolist())
        key = softdraw.fold_in(0, "conditional")
        torch.testing.assert_close(made.flatten(), softdraw.gumbel_noise((4 * width,), seed=key))
