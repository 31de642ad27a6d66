"""The law of orders: its numbers against its definition item by item, the noise given an order, its corners."""

import math
from itertools import permutations

import pytest
import torch
from scipy.stats import chisquare, kstest
from torch.distributions import Independent, kl_divergence
from torch.testing import assert_close

import softdraw
from tests.methods import one_hot_logits

INF = math.inf
PUBLISHED = torch.tensor([0.5, -1.0, 1.2, 0.0, 0.3], dtype=torch.float64)


def log_p(theta, order):
    """By the definition, an item after the other, in Python's numbers."""
    left, total = list(range(len(theta))), 0.0
    for item in order:
        top = max(theta[i] for i in left)
        total += theta[item] - top - math.log(math.fsum(math.exp(theta[i] - top) for i in left))
        left.remove(item)
    return total


@pytest.mark.parametrize("length", [0, 1, 2, 4, 5])
def test_every_number_against_the_definition(length):
    theta = 3 * one_hot_logits(5)
    law = softdraw.PlackettLuce(theta, length)
    every = list(permutations(range(5), length))
    assert law.enumerate_support().tolist() == [list(order) for order in every]
    assert law.states == len(every)
    exact = torch.tensor([log_p(theta.tolist(), order) for order in every], dtype=torch.float64)
    assert_close(law.log_prob(law.enumerate_support()), exact, rtol=1e-12, atol=1e-12)
    assert_close(law.entropy(), -(exact.exp() * exact).sum(), rtol=1e-12, atol=1e-12)
    assert law.mode.tolist() == list(every[int(exact.argmax())])
    other = softdraw.PlackettLuce(one_hot_logits(5, seed=1), length)
    away = exact - other.log_prob(law.enumerate_support())
    assert_close(kl_divergence(law, other), (exact.exp() * away).sum(), rtol=1e-12, atol=1e-12)


def test_published_numbers():
    law = softdraw.PlackettLuce(PUBLISHED, 3)
    assert_close(law.log_prob(torch.tensor([2, 0, 4])).exp().item(), 0.081006, rtol=0, atol=5e-7)
    # Mean log T in the places of an order, as the clocks of its items ring.
    full = softdraw.PlackettLuce(PUBLISHED)
    z = full.scores_given(full.sample((20_000,), seed=1), seed=2)
    places = -z.sort(-1, descending=True).values
    expected = torch.tensor([-2.613, -1.302, -0.516, 0.944, 0.354])
    order = full.sample((20_000,), seed=1)
    in_order = -z.gather(-1, order)
    assert torch.equal(in_order, places)
    given = torch.tensor([2, 0, 4])
    clocks = -law.scores_given(given.expand(100_000, 3), seed=3)
    ranked = torch.cat((clocks[:, given], clocks[:, [1, 3]]), 1).mean(0)
    assert_close(ranked.float(), expected, rtol=0, atol=0.02)


def test_samples_are_sorted_noise_and_begin_with_gumbel_max():
    theta = one_hot_logits(50, 9, dtype=torch.float32)
    law = softdraw.PlackettLuce(theta)
    order = law.sample((4,), seed=5)
    assert order.dtype == torch.int64
    assert torch.equal(order[..., 0], softdraw.gumbel_max(theta, sample_shape=(4,), seed=5))
    assert torch.equal(order[0], (theta + softdraw.gumbel_noise((50, 9), seed=5)).argsort(-1, descending=True))
    assert torch.equal(softdraw.PlackettLuce(theta, 3).sample((4,), seed=5), order[..., :3])
    assert torch.equal(softdraw.gumbel_topk(theta, 3, seed=5, sample_shape=(4,)), order[..., :3])
    assert torch.equal(order.sort(-1).values, torch.arange(9).expand(4, 50, 9))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_samples_have_the_law_of_the_rounded_logits(dtype):
    theta = (1.5 * one_hot_logits(5)).to(dtype)
    law = softdraw.PlackettLuce(theta, 3)
    code = 5 ** torch.arange(3)
    p = softdraw.PlackettLuce(theta.double(), 3).log_prob(law.enumerate_support()).exp()
    counts = torch.bincount(law.sample((60_000,), seed=1) @ code, minlength=125)[law.enumerate_support() @ code]
    assert counts.sum() == 60_000
    few = p * 60_000 < 5
    observed = torch.cat((counts[~few], counts[few].sum(0, keepdim=True)))
    expected = torch.cat((p[~few], p[few].sum(0, keepdim=True))) * 60_000
    assert chisquare(observed, expected).pvalue > 1e-4


def test_long_orders_and_large_differences():
    for n, length, scale in ((300, None, 1.0), (300, 40, 30.0), (40, None, 1e4)):
        theta = scale * one_hot_logits(n)
        law = softdraw.PlackettLuce(theta, length)
        for order in (law.sample(seed=0), law.mode, law.mode.flip(0)):
            assert_close(law.log_prob(order).item(), log_p(theta.tolist(), order.tolist()), rtol=1e-11, atol=1e-11)
            narrow = softdraw.PlackettLuce(theta.float(), length).log_prob(order).item()
            exact = log_p(theta.float().tolist(), order.tolist())
            assert abs(narrow - exact) <= 1e-7 * abs(exact)  # one rounding


def test_one_place_is_a_category_in_every_number():
    rows = [
        [0.3, -1.2, 2.0, 0.1],
        [-INF, 0.5, 0.2, -INF],
        [INF, 0.5, 0.2, -INF],
        [INF, INF, 0.2, -1.0],
        [1e4, 0, 3, 9999],
    ]
    theta = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
    ours, theirs = softdraw.PlackettLuce(theta, 1), softdraw.OneHotCategorical(theta)
    index = torch.arange(4).view(4, 1, 1)
    pairs = [(ours.entropy(), theirs.entropy()), (ours.marginals()[:, 0], theirs.mean)]
    pairs.append((ours.log_prob(index), theirs.log_prob(torch.eye(4, dtype=torch.float64).unsqueeze(1))))
    arriving = one_hot_logits(4, 5)
    for found, expected in pairs:
        assert_close(found, expected)
        weight = arriving if found.shape == (4, 5) else arriving[: len(found)] if found.dim() > 1 else arriving[0]
        total = [
            (torch.where(y.isinf(), 0, y) * (weight.T if y.shape == (5, 4) else weight)).sum()
            for y in (found, expected)
        ]
        assert_close(*(torch.autograd.grad(y, theta, retain_graph=True)[0] for y in total))
    finite = theta.detach()[[0, 1, 4]]
    a, b = (
        softdraw.PlackettLuce(finite, 1).sample((50,), seed=1),
        softdraw.OneHotCategorical(finite).sample((50,), seed=1),
    )
    assert torch.equal(a[..., 0], b.argmax(-1))
    one = softdraw.PlackettLuce(torch.zeros(2, 1))
    assert torch.equal(one.sample(seed=0), torch.zeros(2, 1, dtype=torch.int64))
    assert torch.equal(one.log_prob(one.sample(seed=0)), torch.zeros(2))


def test_items_at_infinity_come_first_each_as_likely():
    law = softdraw.PlackettLuce(torch.tensor([INF, 0.5, INF, -0.3, -INF], dtype=torch.float64), 4)
    rest = softdraw.PlackettLuce(torch.tensor([0.5, -0.3], dtype=torch.float64))
    for first in ([0, 2], [2, 0]):
        for behind in ([0, 1], [1, 0]):
            order = torch.tensor(first + [[1, 3][i] for i in behind])
            assert_close(law.log_prob(order), rest.log_prob(torch.tensor(behind)) - math.log(2))
    assert law.log_prob(torch.tensor([0, 1, 2, 3])) == -INF
    assert_close(law.entropy(), rest.entropy() + math.log(2))
    assert (law.sample((3,), seed=0) == -1).all()  # as gumbel_topk has it
    assert (law.mode == -1).all()


def test_orders_of_rows_that_allow_fewer():
    mask = torch.tensor([[True, False, True, False], [False] * 4, [True] * 4])
    theta = one_hot_logits(3, 4).requires_grad_()
    law = softdraw.PlackettLuce(theta, 3, mask)
    y = law.sample((200,), seed=0)
    assert (y[:, 0, :2] >= 0).all()
    assert (y[:, 0, 2] == -1).all()
    assert set(y[:, 0].flatten().tolist()) == {0, 2, -1}
    assert (y[:, 1] == -1).all()
    assert (y[:, 2] >= 0).all()
    assert law.mode[1].tolist() == [-1, -1, -1]
    small = softdraw.PlackettLuce(theta[0, [0, 2]])
    assert_close(law[0].log_prob(torch.tensor([2, 0, -1])), small.log_prob(torch.tensor([1, 0])))
    assert_close(law.entropy()[0], small.entropy())
    assert law[1].log_prob(torch.tensor([-1, -1, -1])) == 0
    for bad in ([2, -1, -1], [2, -1, 0], [2, 0, 1], [-1, 2, 0], [2, 2, -1]):
        assert softdraw.PlackettLuce(theta, 3, mask, validate_args=False).log_prob(torch.tensor(bad))[0] == -INF
    every = law.enumerate_support()
    p = law.log_prob(every).exp()
    assert_close(p.sum(0), torch.ones(3, dtype=torch.float64))
    assert {tuple(order) for order in every[p[:, 0] > 0, 0].tolist()} == {(0, 2, -1), (2, 0, -1)}
    assert (law.enumerate_support(expand=False) >= 0).all()
    z = law.scores_given(y, seed=1)
    assert (z == -INF)[:, ~mask].all()
    total = torch.where(z.isfinite(), z, 0).sum() + law.log_prob(y).sum() + law.entropy().sum() + law.marginals().sum()
    (g,) = torch.autograd.grad(total, theta)
    assert g.isfinite().all()
    assert (g[~mask] == 0).all()
    assert (g[1] == 0).all()


@pytest.mark.parametrize("length", [0, 1, 3, 6])
def test_scores_given_an_order_sort_to_it_and_are_gumbel_together(length):
    theta = one_hot_logits(6)
    law = softdraw.PlackettLuce(theta, length)
    order = law.sample((20_000,), seed=1)
    z = law.scores_given(order, seed=1)  # the seed of the draw: the noise is independent of it all the same
    assert z.dtype == torch.float64
    assert torch.equal(z.argsort(-1, descending=True)[..., :length], order)
    for item in range(6):
        assert kstest((z - theta)[:, item], lambda g: torch.exp(-torch.exp(-torch.tensor(g))).numpy()).pvalue > 1e-4
    assert abs(torch.corrcoef((z - theta).T) - torch.eye(6)).max() < 5 / 20_000**0.5
    narrow = softdraw.PlackettLuce(theta.float(), length).scores_given(order, seed=1)
    far = (narrow.double() - z).abs()  # noise in float32 has fewer digits where it is near -2.8
    assert far.quantile(0.999) < 1e-5
    assert far.max() < 5e-3


def test_scores_given_one_place_are_those_given_the_argmax_and_have_derivatives():
    theta = one_hot_logits(3, 5).requires_grad_()
    index = torch.tensor([1, 4, 0])
    z = softdraw.PlackettLuce(theta, 1).scores_given(index.unsqueeze(-1), seed=4)
    g = softdraw.gumbel_noise((3, 5), seed=4, logits=theta, index=index, dtype=torch.float64)
    assert_close(z, theta + g)
    law = softdraw.PlackettLuce(theta, 3)
    order = law.sample(seed=0)
    assert torch.autograd.gradcheck(lambda x: softdraw.PlackettLuce(x, 3).scores_given(order, seed=4), theta)
    assert torch.autograd.gradgradcheck(lambda x: softdraw.PlackettLuce(x, 3).scores_given(order, seed=4), theta)
    whole = law.scores_given(order, seed=4)
    part = softdraw.PlackettLuce(theta[1:], 3).scores_given(order[1:], seed=4, rows=1)
    assert torch.equal(part, whole[1:])


def test_what_is_not_there_says_what_to_do():
    law = softdraw.PlackettLuce(torch.zeros(13))
    for call, words in ((law.entropy, "log_prob"), (law.marginals, "law.matrix"), (lambda: law.mean, "marginals")):
        with pytest.raises(NotImplementedError, match=words):
            call()
    with pytest.raises(NotImplementedError, match="not an exponential family"):
        law.log_normalizer()
    with pytest.raises(ValueError, match="length must be at most the 4 items of the logits, got 5"):
        softdraw.PlackettLuce(torch.zeros(4), 5)
    with pytest.raises(
        ValueError, match=r"value must end in the event shape \(3,\), got shape \(2,\): an order is as many"
    ):
        softdraw.PlackettLuce(torch.zeros(4), 3).log_prob(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="laws over the same items, got 4 and 5 of them"):
        kl_divergence(softdraw.PlackettLuce(torch.zeros(4), 2), softdraw.PlackettLuce(torch.zeros(5), 2))
    with pytest.raises(
        TypeError, match=r"ZGR does not serve PlackettLuce.*none of its kind; Exact, LeaveOneOut.*expect"
    ):
        law.rsample()
    assert "length=13" in repr(law)
    joint = Independent(softdraw.PlackettLuce(torch.zeros(3, 4), 2), 1)
    assert_close(joint.log_prob(joint.sample()), torch.tensor(-3 * math.log(12)))


def test_many_items_are_drawn_but_not_numbered():
    law = softdraw.PlackettLuce(one_hot_logits(100_000, dtype=torch.float32))
    assert law.log_prob(law.sample(seed=0)).isfinite()
    with pytest.raises(
        ValueError, match=r"Exact\(limit=100000\) would have to enumerate 1e\+300 joint states: use Sum"
    ):
        softdraw.expect(lambda y: y[..., 0].float(), law, softdraw.Exact())
