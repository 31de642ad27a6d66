"""What ``draw`` promises for every rule: the sample, the seed, ``value=``, dtypes, autograd, transforms, refusals."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Independent, OneHotCategorical
from torch.testing import assert_close

import softdraw
from tests.methods import HARD, PATHWISE, SCORE, label, one_hot_logits

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def value_and_gradient(rule, logits, weight, **keywords):
    leaf = logits.clone().requires_grad_()
    y = softdraw.draw(softdraw.OneHotCategorical(leaf), rule, **keywords)
    return y.detach(), torch.autograd.grad(y, leaf, weight.to(y.dtype).expand_as(y))[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_straight_through_gumbel_is_the_function(dtype, hard, masked):
    weight = one_hot_logits(6, 5, seed=1)
    mask = one_hot_logits(6, 5, seed=2) > 0 if masked else None
    tau = torch.rand(6, 1, generator=torch.Generator().manual_seed(0)) + 0.3
    rule = softdraw.StraightThroughGumbel(tau) if hard else softdraw.GumbelSoftmax(tau)
    a, b = (one_hot_logits(6, 5).to(dtype).requires_grad_() for _ in range(2))
    ours = softdraw.draw(softdraw.OneHotCategorical(a, mask), rule, seed=3)
    theirs = softdraw.gumbel_softmax(b, tau, hard, mask=mask, seed=3)
    assert torch.equal(ours, theirs)
    grads = [torch.autograd.grad(y, x, weight.to(dtype))[0] for y, x in ((ours, a), (theirs, b))]
    assert torch.equal(*grads)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", HARD, ids=label)
def test_samples_are_the_gumbel_max_one_hots_in_every_dtype(rule, dtype):
    logits, weight = one_hot_logits(300, 7, dtype=dtype), one_hot_logits(300, 7, seed=1)
    y, gradient = value_and_gradient(rule, logits, weight, seed=9)
    index = softdraw.gumbel_max(logits, seed=9)
    assert torch.equal(y, torch.nn.functional.one_hot(index, 7).to(dtype))
    exact = value_and_gradient(rule, logits.double(), weight.to(dtype).double(), value=y.double(), seed=9)[1]
    if torch.equal(exact, value_and_gradient(rule, logits.double(), weight.to(dtype).double(), value=y.double())[1]):
        epsilon = max(torch.finfo(dtype).eps, 1e-6)  # a rule without noise beyond the sample, so the same everywhere
        assert_close(gradient.double(), exact, rtol=4 * epsilon, atol=4 * epsilon)
    assert gradient.dtype == dtype
    assert_close(gradient.double().sum(-1), torch.zeros(300, dtype=torch.float64), rtol=0, atol=0.1)


@pytest.mark.parametrize("rule", PATHWISE, ids=label)
def test_the_first_of_many_is_the_plain_draw(rule):
    logits, weight = one_hot_logits(4, 3), one_hot_logits(4, 3, seed=1)
    leaf = logits.clone().requires_grad_()
    many = softdraw.draw(softdraw.OneHotCategorical(leaf), rule, (2, 5), seed=1)
    y, gradient = value_and_gradient(rule, logits, weight, seed=1)
    assert many.shape == (2, 5, 4, 3)
    assert_close(many[0, 0].detach(), y)
    assert_close(torch.autograd.grad(many[0, 0], leaf, weight)[0], gradient)
    assert len({tuple(s.flatten().tolist()) for s in many.detach().flatten(0, 1)}) > 5


@pytest.mark.parametrize("rule", PATHWISE, ids=label)
def test_rows_key_a_draw_and_its_gradient_by_id(rule):
    logits, weight = one_hot_logits(6, 3), one_hot_logits(6, 3, seed=1)
    ids, order = torch.tensor([5, 11, 2, 70, 8, 1]), torch.tensor([3, 0, 5, 2, 4, 1])
    y, gradient = value_and_gradient(rule, logits, weight, seed=1, rows=ids)
    permuted, its_gradient = value_and_gradient(rule, logits[order], weight[order], seed=1, rows=ids[order])
    assert torch.equal(permuted, y[order])
    assert_close(its_gradient, gradient[order])


@pytest.mark.parametrize("rule", HARD, ids=label)
def test_a_given_sample_comes_back_with_the_gradient_there(rule):
    logits, weight = one_hot_logits(2, 3), one_hot_logits(2, 3, seed=1)
    value = torch.eye(3, dtype=torch.float64).view(3, 1, 3).expand(3, 2, 3)
    y, gradient = value_and_gradient(rule, logits, weight, value=value, seed=2)
    assert torch.equal(y, value)
    total = sum(value_and_gradient(rule, logits, weight, value=v[None], seed=2)[1] for v in value)
    if not isinstance(rule, (softdraw.GumbelRao, softdraw.ReinMaxRao, softdraw.StraightThroughGumbel)):
        assert_close(gradient, total)  # sample i has noise stream i, so only rules without noise can be split


def test_a_given_sample_of_the_relaxation_is_where_it_peaks():
    value = torch.eye(4, dtype=torch.float64).repeat(50, 1)
    y, gradient = value_and_gradient(softdraw.GumbelSoftmax(0.4), one_hot_logits(200, 4), value, value=value, seed=0)
    assert torch.equal(y.argmax(-1), value.argmax(-1))
    assert_close(y.sum(-1), torch.ones(200, dtype=torch.float64))
    k = value.argmax(-1, keepdim=True)
    top = y.gather(-1, k)
    assert_close(gradient.gather(-1, k), top * (1 - top) / 0.4)  # its own Jacobian at that relaxed sample


def test_conditional_noise_has_the_law_of_the_noise_itself():
    # x ~ p, then scores given x: the relaxed sample must have the law it has without conditioning. C = 2: exact CDF.
    from scipy.stats import kstest

    n, logits, tau = 100_000, torch.tensor([0.3, -0.5], dtype=torch.float64), 0.8
    law = softdraw.OneHotCategorical(logits.expand(n, 2))
    y = softdraw.draw(law, softdraw.GumbelSoftmax(tau), value=law.sample(seed=1), seed=2)
    logistic = tau * (y[:, 1].log() - y[:, 0].log()) - (logits[1] - logits[0])
    assert kstest(logistic.numpy(), "logistic").pvalue > 1e-4


@pytest.mark.parametrize("rule", PATHWISE, ids=label)
def test_broken_rows_stay_alone(rule):
    logits = one_hot_logits(5, 3)
    logits[1, 0], logits[2, 1], logits[3] = math.nan, math.inf, -math.inf
    mask = torch.ones(5, 3, dtype=torch.bool)
    mask[4] = False
    leaf = logits.clone().requires_grad_()
    for shape in ((), (2,)):
        y = softdraw.draw(softdraw.OneHotCategorical(leaf, mask), rule, shape, seed=0)
        (gradient,) = torch.autograd.grad(y, leaf, one_hot_logits(5, 3, seed=1).expand_as(y))
        (plain,) = torch.autograd.grad(
            softdraw.draw(softdraw.OneHotCategorical(leaf), rule, shape, seed=0)[..., 0, :].sum(0).sum(), leaf
        )
        assert y[..., 1:3, :].isnan().all()
        assert not y[..., 3:, :].any()
        assert y[..., 0, :].isfinite().all()
        assert plain[0].isfinite().all()
        assert gradient[0].abs().sum() > 0
        assert not gradient[3:].any()


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 0, 3), (1,), (4, 1)])
@pytest.mark.parametrize("rule", PATHWISE, ids=label)
def test_small_shapes(rule, shape):
    y, gradient = value_and_gradient(rule, one_hot_logits(*shape), torch.ones(shape), seed=0)
    assert y.shape == gradient.shape == shape
    assert_close(y.sum(-1), torch.ones(shape[:-1], dtype=torch.float64))
    assert_close(gradient, torch.zeros(shape, dtype=torch.float64))  # a constant f has no gradient


def test_seeds():
    law = softdraw.OneHotCategorical(torch.zeros(1000, 8))
    torch.manual_seed(3)
    a, b = softdraw.draw(law), softdraw.draw(law)
    torch.manual_seed(3)
    assert torch.equal(softdraw.draw(law), a)
    assert not torch.equal(a, b)
    g = torch.Generator().manual_seed(4)
    c = softdraw.draw(law, generator=g)
    assert torch.equal(softdraw.draw(law, generator=torch.Generator().manual_seed(4)), c)
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="value must have the shape"):
        softdraw.draw(law, value=torch.zeros(3))
    assert torch.equal(torch.get_rng_state(), state)


def test_memory_of_gumbel_rao_does_not_grow_with_its_samples():
    from torch.autograd.graph import saved_tensors_hooks

    def saved(samples):
        sizes = []
        leaf = one_hot_logits(64, 8).requires_grad_()
        with saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            softdraw.draw(softdraw.OneHotCategorical(leaf), softdraw.GumbelRao(0.5, samples), seed=0)
        return sum(sizes)

    assert saved(1000) == saved(2) <= 2 * 64 * 8 + 64 + 1


def test_the_formula_of_gumbel_rao_holds_no_more_noise_for_more_samples(monkeypatch):
    """Where torch.func must see the steps; tests/test_rule_kernels.py measures the operation."""
    from softdraw.operators import draws
    from softdraw.rules import fused

    sizes, noise = [], draws.gumbel_noise
    monkeypatch.setattr(fused, "is_plain", lambda x: False)
    monkeypatch.setattr(draws, "gumbel_noise", lambda *a: sizes.append((g := noise(*a)).numel()) or g)
    for samples in (3_000, 12_000):
        value_and_gradient(softdraw.GumbelRao(0.5, samples), one_hot_logits(64, 8), one_hot_logits(64, 8), seed=0)
        assert sum(sizes) == samples * 64 * 8
        assert max(sizes) <= 2**20
        sizes.clear()


def test_torch_laws_and_independent():
    logits = one_hot_logits(4, 3)
    ours = softdraw.draw(softdraw.OneHotCategorical(logits.log_softmax(-1)), seed=1)
    assert torch.equal(softdraw.draw(OneHotCategorical(logits=logits), seed=1), ours)
    assert torch.equal(
        softdraw.draw(Independent(softdraw.OneHotCategorical(logits), 1), seed=1),
        softdraw.draw(softdraw.OneHotCategorical(logits), seed=1),
    )
    bits = softdraw.draw(Bernoulli(logits=logits), seed=1)
    assert torch.equal(bits, softdraw.draw(softdraw.Bernoulli(logits), seed=1))


def test_expect_by_a_pathwise_rule():
    leaf = one_hot_logits(5, 3).requires_grad_()
    law = Independent(softdraw.OneHotCategorical(leaf), 1)
    w = one_hot_logits(5, 3, seed=1)
    value = softdraw.expect(lambda y: (y * w).sum((-1, -2)), law, softdraw.StraightThrough(), samples=3, seed=2)
    p = leaf.detach().softmax(-1)
    expected = p * (w - (p * w).sum(-1, keepdim=True))
    assert_close(torch.autograd.grad(value, leaf)[0], expected)  # ST is exact on a linear f
    many = softdraw.expect(lambda y: (y * w).sum((-1, -2)), law, softdraw.ZGR(), samples=20_000, seed=2)
    deviation = ((p * w**2).sum() - (p * w).sum(-1).square().sum()).sqrt() / 20_000**0.5
    assert abs(many - (p * w).sum()) < 4 * deviation


@pytest.mark.parametrize("rule", SCORE, ids=label)
def test_a_score_function_rule_goes_to_expect(rule):
    with pytest.raises(TypeError, match=r"rule must be a pathwise rule.* goes to softdraw\.expect"):
        softdraw.draw(softdraw.Bernoulli(torch.zeros(2)), rule)


def test_refusals():
    with pytest.raises(TypeError, match=r"law must be .*RelaxedOneHotCategorical: a relaxed law"):
        softdraw.draw(softdraw.RelaxedOneHotCategorical(1.0, torch.zeros(3)))
    with pytest.raises(TypeError, match="law must be"):
        softdraw.draw(torch.distributions.Normal(0.0, 1.0))
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="tau of ReinMax must be positive and finite"):
            softdraw.ReinMax(bad)
    with pytest.raises(TypeError, match="tau of GumbelRao must be a float"):
        softdraw.GumbelRao("1")
    with pytest.raises(ValueError, match="requires a gradient, and this rule gives it none"):
        softdraw.StraightThrough(torch.ones(1, requires_grad=True))
    with pytest.raises(ValueError, match="gap of GappedStraightThrough"):
        softdraw.GappedStraightThrough(gap=-1.0)
    with pytest.raises(ValueError, match="samples of GumbelRao must be at least 1, got 0"):
        softdraw.GumbelRao(0.5, 0)
    with pytest.raises(ValueError, match=r"rows of shape"):
        softdraw.draw(softdraw.OneHotCategorical(torch.zeros(2, 3)), rows=torch.arange(3))


def test_a_learned_tau_gets_its_gradient_from_the_relaxation():
    tau = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    law = softdraw.OneHotCategorical(one_hot_logits(4, 3))
    for shape in ((), (3,)):
        torch.autograd.gradcheck(lambda t, s=shape: softdraw.draw(law, softdraw.GumbelSoftmax(t), s, seed=1), tau)


OF_LAW = {
    "logits": lambda x, **how: softdraw.draw(x, softdraw.ZGR(), **how),
    "one-hots": lambda x, **how: softdraw.draw(softdraw.OneHotCategorical(x), softdraw.StraightThrough(), **how),
    "bits": lambda x, **how: softdraw.draw(softdraw.Bernoulli(x), softdraw.StraightThrough(), **how),
    "bits of samples": lambda x, **how: softdraw.draw(softdraw.Bernoulli(x), softdraw.ZGR(), (2,), **how),
    "samples": lambda x, **how: softdraw.draw(x, softdraw.GumbelRao(0.5, 2), (3,), **how),
    "entropy": lambda x, seed: softdraw.Bernoulli(x).entropy(),
    "likelihood": lambda x, seed: softdraw.Bernoulli(x).log_prob(torch.ones(3, 4, device="cpu")),
    "loss": lambda x, seed: softdraw.losses.bernoulli_nll(x, torch.ones(3, 4, device="cpu")),
    "variance": lambda x, seed: softdraw.Bernoulli(x).variance,
}


@pytest.mark.parametrize("draw", OF_LAW.values(), ids=OF_LAW)
def test_results_are_on_the_device_of_the_logits_whatever_the_default_device(draw):
    """Memory on another device is none that a kernel could write to."""
    leaf = one_hot_logits(3, 4).float().requires_grad_()

    def both():
        y = draw(leaf, seed=1)
        (dx,) = torch.autograd.grad(y, leaf, torch.ones_like(y))
        return y, dx

    expected = both()
    with torch.device("meta"):
        found = both()
    for a, b in zip(found, expected, strict=True):
        assert a.device.type == "cpu"
        assert_close(a, b)
