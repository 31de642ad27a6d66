"""Every gradient rule, once; the tests go by property over these lists. A new rule is one line here."""

from dataclasses import dataclass

import torch
from torch.distributions import Independent

import softdraw

PATHWISE = [
    softdraw.StraightThrough(),
    softdraw.StraightThrough(tau=1.4),
    softdraw.GumbelSoftmax(tau=0.7),
    softdraw.StraightThroughGumbel(tau=0.7),
    softdraw.StraightThroughGumbel(tau=0.7, backward_tau=1.3),
    softdraw.GumbelRao(tau=0.7, samples=5),
    softdraw.GappedStraightThrough(tau=0.8, gap=1.0),
    softdraw.ZGR(),
    softdraw.ReinMax(),
    softdraw.ReinMax(tau=1.3),
    softdraw.ReinMaxRao(tau=0.9, samples=5),
    softdraw.MinimumVariance(tau=2.0),
]
SCORE = [
    softdraw.Reinforce(baseline=0.4),
    softdraw.LeaveOneOut(samples=4),
    softdraw.DisARM(pairs=2),
    softdraw.Rebar(tau=0.6, eta=0.8),
    softdraw.Relax(control=lambda y: 0.7 * y.flatten(2).cumsum(-1).square().sum(-1), tau=0.8),
    softdraw.SumAndSample(summed=3, samples=2),
    softdraw.Exact(),
]
OF_SUBSETS = [softdraw.IMLE(lam=1.5, tau=0.8), softdraw.RelaxedTopK(tau=0.6)]  # tests/test_rules_of_subsets.py
HARD = [rule for rule in PATHWISE if not isinstance(rule, softdraw.GumbelSoftmax)]


def label(rule) -> str:
    """A test id: the rule's name and its numbers."""
    if isinstance(rule, (int, float)):
        return str(rule)
    numbers = [str(v) for v in vars(rule).values() if isinstance(v, (int, float))]
    return "-".join([type(rule).__name__, *numbers])


def one_hot_logits(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@dataclass(frozen=True)
class Estimate:
    """The mean gradient over samples (exact) and noise (Monte Carlo), its standard error, and one draw's variance."""

    mean: torch.Tensor
    error: torch.Tensor
    variance: float


def enumerated(rule, logits, slope, noises=1, seed=0) -> Estimate:
    """A pathwise rule at fixed logits (C,): every sample x given by ``value=``, ``slope(x)`` arriving at it."""
    c = logits.numel()
    each = logits.expand(noises, c, c).clone().requires_grad_()
    x = torch.eye(c, dtype=logits.dtype).expand(noises, c, c)
    y = softdraw.draw(softdraw.OneHotCategorical(each), rule, value=x, seed=seed)
    g = torch.autograd.grad(y, each, slope(y.detach()))[0]
    p = logits.softmax(-1).view(c, 1)
    per_noise = (p * g).sum(1)
    mean = per_noise.mean(0)
    variance = (p * (g - mean).square()).sum((1, 2)).mean().item()
    return Estimate(mean, per_noise.std(0) / noises**0.5 if noises > 1 else torch.zeros(c), variance)


def exact_gradient(f, law, logits):
    """The gradient of E[f] by plain enumeration, without the library's own: sum over the joint states."""
    base = law.base_dist if isinstance(law, Independent) else law
    states = base.enumerate_support(expand=False).flatten(0, -1 - len(base.event_shape))
    n = law.event_shape.numel() // base.event_shape.numel()
    index = torch.cartesian_prod(*[torch.arange(len(states))] * n).reshape(-1, n)
    joint = states[index].reshape(len(index), *[1] * len(law.batch_shape), *law.event_shape)
    joint = joint.expand(-1, *law.batch_shape, *law.event_shape)
    expectation = (law.log_prob(joint).exp() * f(joint)).sum(0)
    return expectation.detach(), torch.autograd.grad(expectation.sum(), logits)[0]
