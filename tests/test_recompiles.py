"""What changes from step to step, a seed or an annealed tau, is an input of a compiled graph and no constant of it.

torch.compile makes a constant of a Python number at first and a variable from its second value on: two graphs. A
backend without AOTAutograd, such as CompileCounter, does not show what a real one compiles again.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from compilation import BACKENDS, fresh, gradient, graphs
from leaves import make
from methods import PATHWISE, label

import softdraw
from softdraw.schedules import TauScheduler, linear

STEPS = 100
GRAPHS = 2
X = make((6, 5), torch.float64)
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def taus():
    """An annealed tau, a new Python float at every step, none of them a float32."""
    return [1.0 - 0.9 * step / STEPS for step in range(STEPS)]


def follow(function, calls, backend):
    """Compile ``function`` and call it beside the eager one with every element of ``calls``."""
    compiled = fresh(function, backend)
    for arguments in calls:
        expected = gradient(function, X, *arguments)
        found = gradient(compiled, X, *arguments)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert graphs() <= GRAPHS


FUNCTIONS = {
    "soft": lambda x, tau, seed: softdraw.gumbel_softmax(x, tau, seed=seed),
    "hard": lambda x, tau, seed: softdraw.gumbel_softmax(x, tau, hard=True, seed=seed),
    "rows": lambda x, tau, seed: softdraw.gumbel_softmax(x, tau, seed=seed, rows=seed, dim=0),
    "no noise": lambda x, tau, seed: softdraw.gumbel_softmax(x, tau, noise=False),
    "index": lambda x, tau, seed: softdraw.gumbel_max(x, seed=seed).double(),
    "noise": lambda x, tau, seed: x * softdraw.gumbel_noise((6, 5), seed=seed, dtype=torch.float64),
    "bits": lambda x, tau, seed: softdraw.draw(softdraw.Bernoulli(x), softdraw.ReinMax(tau), seed=seed),
    "relaxed": lambda x, tau, seed: softdraw.RelaxedOneHotCategorical(tau, x).rsample(seed=seed),
    "backward_tau": lambda x, tau, seed: softdraw.draw(
        softdraw.OneHotCategorical(x), softdraw.StraightThroughGumbel(1.0, backward_tau=tau), seed=seed
    ),
    "pos_weight": lambda x, tau, seed: softdraw.losses.bernoulli_nll(
        x, (x.detach() > 0).double(), pos_weight=tau, reduction="none"
    ),
    "gap": lambda x, tau, seed: softdraw.draw(
        softdraw.OneHotCategorical(x), softdraw.GappedStraightThrough(tau, gap=tau), seed=seed
    ),
}


@each_backend
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_tau_and_step(name, backend):
    follow(FUNCTIONS[name], [(tau, step) for step, tau in enumerate(taus())], backend)


def anew(rule, tau):
    """The rule, made again with another tau."""
    rest = {field.name: getattr(rule, field.name) for field in dataclasses.fields(rule) if field.name != "tau"}
    return type(rule)(**rest, **({"tau": tau} if hasattr(rule, "tau") else {}))


@each_backend
@pytest.mark.parametrize("rule", PATHWISE, ids=label)
def test_a_rule_that_is_made_at_every_step(rule, backend):
    """Made inside of what is compiled, and outside of it."""

    def inside(x, tau, step):
        return outside(x, anew(rule, tau), step)

    def outside(x, rule, step):
        return softdraw.draw(softdraw.OneHotCategorical(x), rule, seed=step)

    follow(inside, [(tau, step) for step, tau in enumerate(taus())], backend)
    if backend == "aot_eager":
        follow(outside, [(anew(rule, tau), step) for step, tau in enumerate(taus())], backend)


@pytest.mark.parametrize("rule", PATHWISE, ids=label)
def test_an_expectation_by_a_rule_that_is_made_at_every_step(rule):
    def function(x, tau, step):
        law = softdraw.OneHotCategorical(x)
        return softdraw.expect(lambda y: (y * y.cumsum(-1)).sum(-1), law, anew(rule, tau), samples=2, seed=step)

    follow(function, [(tau, step) for step, tau in enumerate(taus())], "aot_eager")


@each_backend
@pytest.mark.parametrize("rule", [softdraw.ReinMax, softdraw.GumbelSoftmax])
def test_an_expectation_of_every_backend(rule, backend):
    def function(x, tau, step):
        return softdraw.expect(lambda y: (y**3).sum(-1), softdraw.OneHotCategorical(x), rule(tau), seed=step)

    follow(function, [(tau, step) for step, tau in enumerate(taus())], backend)


class Holder(torch.nn.Module):
    """A module that holds its tau as a Python float."""

    def __init__(self, hard):
        super().__init__()
        self.tau, self.hard = 1.0, hard

    def forward(self, x, seed):
        return softdraw.gumbel_softmax(x, self.tau, self.hard, seed=seed)


@each_backend
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("make_module", [Holder, lambda hard: softdraw.nn.GumbelSoftmax(1.0, hard)])
def test_a_module_whose_tau_is_scheduled(make_module, hard, backend):
    """A float attribute takes two graphs and a buffer one, besides that of the second seed."""
    module = make_module(hard)
    scheduler = TauScheduler(module, linear(1.0, 0.1, STEPS))
    compiled = fresh(module, backend)
    for step in range(STEPS):
        expected = gradient(module, X, seed=step)
        torch.testing.assert_close(gradient(compiled, X, seed=step), expected)
        scheduler.step()
    assert scheduler.get_last_value() == pytest.approx(0.1)
    assert graphs() <= GRAPHS


@each_backend
def test_a_tau_given_to_a_module(backend):
    module = softdraw.nn.GumbelSoftmax(1.0, hard=True)
    follow(lambda x, tau, seed: module(x, tau=tau, seed=seed), [(t, i) for i, t in enumerate(taus())], backend)


@each_backend
def test_a_float_and_a_tensor_as_stock_torch(backend):
    """F.gumbel_softmax sets what can be had: as many graphs for a float tau, and one for a tensor."""
    counted = []
    for function in (torch.nn.functional.gumbel_softmax, softdraw.gumbel_softmax):
        for convert in (float, torch.tensor):
            compiled = fresh(function, backend)
            for tau in taus():
                gradient(compiled, X, convert(tau), True)
            counted.append(graphs())
    assert counted == [2, 1, 2, 1]


@pytest.mark.parametrize("hard", [False, True])
def test_ragged_batches_and_an_annealed_tau(hard):
    compiled = fresh(lambda x, tau: softdraw.gumbel_softmax(x, tau, hard), "aot_eager")
    for step, tau in enumerate(taus()):
        gradient(compiled, make((6 + step, 5)), tau)
    assert graphs() <= GRAPHS


SEEDS = [-(2**63), -1, 2**63 - 1, *(0x9E3779B97F4A7C15 * n % 2**63 for n in range(20))]


@each_backend
def test_every_seed_of_63_bits_and_a_sign(backend):
    follow(FUNCTIONS["hard"], [(0.7, seed) for seed in SEEDS], backend)


@each_backend
@pytest.mark.parametrize("before", [(), (5, 6)], ids=["constant", "variable"])
def test_a_larger_seed_is_refused_in_a_compiled_graph(before, backend):
    """torch.compile passes 64-bit ints with a sign; in eager code such a seed draws as the negative one of its bits."""
    compiled = fresh(lambda seed: softdraw.gumbel_softmax(X, seed=seed), backend)
    for seed in before:
        compiled(seed)
    with pytest.raises((RuntimeError, ValueError), match=r"seed.*write torch.tensor\(seed - 2\*\*64\)"):
        compiled(2**64 - 3)
    assert torch.equal(softdraw.gumbel_softmax(X, seed=2**64 - 3), compiled(-3))
