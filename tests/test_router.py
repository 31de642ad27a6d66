"""Routers: the laws of what they choose, their weights, the choice's own gradient, and the penalties."""

import itertools
import math

import pytest
import torch
from scipy import stats
from scipy.stats import chisquare
from torch.testing import assert_close

import softdraw
from softdraw.losses import load_balance, router_z, squared_cv
from softdraw.nn import Router
from softdraw.nn.noise import normal
from tests.methods import one_hot_logits
from tests.modules import batch, made

LOGITS = torch.tensor([0.3, -0.5, 1.2, 0.1], dtype=torch.float64)


def drawn(law, k, n=20_000):
    """How often each ordered choice of k of the four experts was drawn."""
    index = Router(None, 4, k, law=law)(logits=LOGITS.expand(n, 4), seed=3).index
    found, counts = index.unique(dim=0, return_counts=True)
    return dict(zip(map(tuple, found.tolist()), counts.tolist(), strict=True))


def test_plackett_luce_has_its_law():
    p, counts = LOGITS.softmax(-1).tolist(), drawn("plackett-luce", 2)
    pairs = list(itertools.permutations(range(4), 2))
    exact = [20_000 * p[i] * p[j] / (1 - p[i]) for i, j in pairs]
    assert chisquare([counts.get(pair, 0) for pair in pairs], exact).pvalue > 1e-4


def test_subsets_have_their_law():
    counts, pairs = drawn("subset", 2), list(itertools.combinations(range(4), 2))
    weight = torch.tensor([math.exp(LOGITS[i] + LOGITS[j]) for i, j in pairs])
    exact = (20_000 * weight / weight.sum()).double()
    assert chisquare([counts.get(pair, 0) for pair in pairs], exact / exact.sum() * 20_000).pvalue > 1e-4


def test_noisy_top_1_chooses_as_its_paper_says():
    """Two experts: the first wins with probability Phi((a - b) / (sqrt(2) sigma)), sigma = softplus(x W)."""
    router = Router(6, 2, 1).double()
    x = batch(1, dtype=torch.float64)
    with torch.no_grad():
        router.scale.weight.normal_(generator=torch.Generator().manual_seed(0))
        router.layer.weight.mul_(0.5)
    theta, scale = router(x, draw=False).theta[0], torch.nn.functional.softplus(router.scale(x))[0]
    wins = (router(x.expand(20_000, -1), seed=1).index == 0).double().mean()
    p = stats.norm.cdf(((theta[0] - theta[1]) / scale.square().sum().sqrt()).item())
    assert abs(wins - p) < 5 * math.sqrt(p * (1 - p) / 20_000)


def test_the_noisy_weights_are_of_the_noisy_scores():
    router, x = made("noisy top-k").double(), batch(dtype=torch.float64)
    choice = router(x, seed=1)
    noisy = choice.theta + normal(choice.theta, torch.tensor(1), None) * torch.nn.functional.softplus(router.scale(x))
    top = noisy.topk(2)
    assert torch.equal(choice.index, top.indices)
    assert_close(choice.value, top.values.softmax(-1))
    fresh = Router(6, 5, 2)
    assert_close(torch.nn.functional.softplus(fresh.scale(batch())), torch.full((8, 5), math.log(2)))


@pytest.mark.parametrize("law", ["top-k", "plackett-luce", "subset"])
@pytest.mark.parametrize("normalize", [None, True, False])
@pytest.mark.parametrize("k", [1, 3])
def test_weights(law, normalize, k):
    router = Router(None, 5, k, law=law, noise=law != "top-k", normalize=normalize)
    theta = one_hot_logits(9, 5).requires_grad_()
    choice = router(logits=theta, seed=0)
    chosen = theta.gather(-1, choice.index)
    whole = normalize or (normalize is None and k > 1)
    exact = chosen.softmax(-1) if whole else theta.softmax(-1).gather(-1, choice.index)
    assert_close(choice.value, exact)
    w = one_hot_logits(9, k, seed=1)
    assert_close(torch.autograd.grad(choice.value, theta, w), torch.autograd.grad(exact, theta, w))
    decided = router.eval()(logits=theta)
    assert torch.equal(decided.index.sort(-1).values, theta.topk(k).indices.sort(-1).values)


def test_its_law_is_what_it_draws_from():
    theta, mask = one_hot_logits(9, 5).requires_grad_(), torch.tensor([True, True, False, True, True])
    kinds = {"top-k": softdraw.OneHotCategorical, "plackett-luce": softdraw.PlackettLuce, "subset": softdraw.Subset}
    for law, kind in kinds.items():
        choice = Router(None, 5, 2, law=law, noise=law != "top-k")(logits=theta, mask=mask, seed=3)
        assert type(choice.law) is kind
        assert choice.theta is choice.law.theta
    choice = Router(None, 5, 2, law="plackett-luce")(logits=theta, mask=mask, seed=3)
    p = theta.masked_fill(~mask, -torch.inf).softmax(-1)
    assert_close(choice.law.probs, p)
    first, second = (p.gather(-1, choice.index[:, i : i + 1]).squeeze(-1) for i in (0, 1))
    exact = (first * second / (1 - first)).log()
    found = choice.law.log_prob(choice.index)
    assert_close(found, exact)
    assert_close(*(torch.autograd.grad(each.sum(), theta, retain_graph=True)[0] for each in (found, exact)))
    assert torch.equal(choice.law.sample(seed=3), choice.index)


def test_without_noise_training_decides_too():
    router = Router(None, 5, 2, law="plackett-luce", noise=False)
    theta = one_hot_logits(9, 5)
    assert torch.equal(router(logits=theta, draw=True).index, theta.topk(2).indices)


def test_fewer_allowed_than_k():
    mask = torch.tensor([True, False, False, True, False])
    for law in ("top-k", "plackett-luce"):
        choice = Router(None, 5, 3, law=law, noise=law != "top-k")(logits=one_hot_logits(9, 5), mask=mask, seed=0)
        assert (choice.index[:, 2] == -1).all()
        assert (choice.value[:, 2] == 0).all()
        assert_close(choice.value.sum(-1), torch.ones(9, dtype=torch.float64))


def test_the_gradient_of_the_choice():
    """With a rule the weights carry the gradient of the subset; without one they do not."""
    theta, w = one_hot_logits(9, 5).requires_grad_(), one_hot_logits(9, 2, seed=1)
    rule = softdraw.ZGR()
    choice = Router(None, 5, 2, law="subset", rule=rule)(logits=theta, seed=4)
    z = softdraw.draw(softdraw.Subset(theta, 2), rule, seed=4)
    exact = theta.gather(-1, choice.index).softmax(-1) * z.gather(-1, choice.index)
    plain = Router(None, 5, 2, law="subset")(logits=theta, seed=4)
    assert torch.equal(choice.index, plain.index)
    assert_close(choice.value, plain.value)
    found, expected, without = (torch.autograd.grad(v, theta, w)[0] for v in (choice.value, exact, plain.value))
    assert_close(found, expected)
    assert (found - without).abs().max() > 0.01


def test_squared_cv_by_its_formula_and_flat_at_perfect_balance():
    p = one_hot_logits(20, 5).softmax(-1).requires_grad_()
    share = p.sum(0)
    exact = share.var(correction=0) / share.mean() ** 2
    assert_close(squared_cv(p), exact)
    assert_close(torch.autograd.grad(squared_cv(p), p), torch.autograd.grad(exact, p))
    even = torch.full((8, 4), 0.25, requires_grad=True)
    assert torch.equal(torch.autograd.grad(squared_cv(even), even)[0], torch.zeros(8, 4))
    hessian = torch.autograd.functional.hessian(squared_cv, torch.full((1, 3), 1 / 3))
    assert hessian.isfinite().all()
    assert_close(squared_cv(torch.eye(4)[:1]), torch.tensor(3.0))
    assert squared_cv(torch.zeros(3, 4)) == 0


def test_squared_cv_of_what_a_router_gives():
    choice = Router(None, 5, 2, law="plackett-luce")(logits=one_hot_logits(30, 5).requires_grad_(), seed=0)
    dense = torch.zeros(30, 5, dtype=torch.float64).scatter(-1, choice.index, choice.value)
    assert_close(squared_cv(choice.value, choice.index, experts=5), squared_cv(dense))
    keep = torch.arange(30) < 17
    assert_close(squared_cv(choice.value, choice.index, experts=5, mask=keep), squared_cv(dense[:17]))
    index = choice.index.masked_fill(~keep.unsqueeze(-1), -1)
    assert_close(squared_cv(choice.value, index, experts=5), squared_cv(dense[:17]))
    assert squared_cv(choice.value.bfloat16(), choice.index, experts=5).dtype == torch.float32


def test_router_z_by_its_formula():
    x = (3 * one_hot_logits(20, 5)).requires_grad_()
    exact = x.logsumexp(-1).square()
    assert_close(router_z(x), exact.mean())
    assert_close(torch.autograd.grad(router_z(x), x), torch.autograd.grad(exact.mean(), x))
    keep, w = torch.arange(20) < 12, torch.rand(20, dtype=torch.float64)
    assert_close(router_z(x, mask=keep, weight=w), (exact * w)[:12].sum() / w[:12].sum())
    assert_close(router_z(x.T, dim=0, reduction="sum"), exact.sum())
    assert router_z(torch.full((2, 3), -torch.inf)) == 0
    spoilt = x.detach().clone()
    spoilt[15] = torch.nan
    assert_close(router_z(spoilt, mask=keep), exact[:12].mean())


def test_the_balance_of_switch_takes_what_a_router_chose():
    choice = Router(None, 5, 1, noise=False)(logits=one_hot_logits(30, 5))
    chosen = torch.nn.functional.one_hot(choice.index.squeeze(-1), 5)
    f, p = chosen.double().mean(0), choice.theta.softmax(-1).mean(0)
    assert_close(load_balance(choice.theta, chosen), 5 * (f * p).sum())


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Router(6, 4, 5), ValueError, ["k", "experts=4", "got 5"]),
        (lambda: Router(6, 4, 0), ValueError, ["k", "at least 1"]),
        (lambda: Router(6, 4, 2, law="topk"), ValueError, ["law", "'top-k', 'plackett-luce', 'subset'", "'topk'"]),
        (lambda: Router(6, 4, 2, noise=0.1), TypeError, ["noise", "bool", "0.1"]),
        (lambda: Router(6, 4, 2, normalize="yes"), TypeError, ["normalize", "bool", "'yes'"]),
        (lambda: Router(6, 4, 2, rule=softdraw.ZGR()), TypeError, ["rule", "law='subset'", "'top-k'"]),
        (lambda: Router(6, 4, 2, law="subset", rule=softdraw.ReinMax()), TypeError, ["ReinMax", "does not serve"]),
        (lambda: Router(None, 4, 2), TypeError, ["inputs", "noisy top-k", "noise=False"]),
        (lambda: Router(6, 4, 2)(logits=LOGITS), TypeError, ["x", "noisy top-k"]),
        (lambda: Router(6, 4, 2)(torch.ones(3, 5)), ValueError, ["x", "(6,)", "(3, 5)"]),
        (lambda: Router(6, 4, 2)(batch(), rows=-1), ValueError, ["rows", "-1"]),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert all(word in str(caught.value) for word in words), caught.value


def test_the_penalties_have_every_derivative():
    x = one_hot_logits(4, 3).requires_grad_()
    for loss in (router_z, lambda t: squared_cv(t.softmax(-1))):
        assert torch.autograd.gradcheck(loss, x, check_forward_ad=True, check_batched_grad=True)
        assert torch.autograd.gradgradcheck(loss, x)
        assert torch.func.vmap(loss)(x.unsqueeze(1)).shape == (4,)
