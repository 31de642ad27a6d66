"""Laws of more samples than can be listed say so, before they ask for the memory; what can be numbered still is."""

import itertools
import math

import pytest
import torch
from torch.distributions import Independent

import softdraw

MANY = {
    "beyond int64": softdraw.Subset(torch.zeros(300), 150),
    "beyond float64": softdraw.Subset(torch.zeros(3000), 1500),
    "beyond memory": softdraw.Subset(torch.zeros(2, 60), 30),
    "a little": softdraw.Subset(torch.zeros(30), 15),
    "orders beyond int64": softdraw.PlackettLuce(torch.zeros(25)),
    "orders beyond float64": softdraw.PlackettLuce(torch.zeros(100_000)),
    "orders beyond memory": softdraw.PlackettLuce(torch.zeros(2, 20), 15),
    "one-hots": softdraw.OneHotCategorical(torch.zeros(70_000)),
}
RULES = [softdraw.Exact(), softdraw.SumAndSample(), softdraw.SumAndSample(limit=10**400)]


def f(y):
    return y.double().sum(-1)


@pytest.mark.parametrize("law", MANY.values(), ids=MANY)
def test_a_list_that_no_memory_has_room_for_is_refused_in_a_sentence(law):
    digits = law.log_states / math.log(10)
    for expand in (True, False):
        with pytest.raises(ValueError, match=rf"enumerate_support of {type(law).__name__}\(.*10\^{digits:.0f} samples"):
            law.enumerate_support(expand)


@pytest.mark.parametrize("law", [law for name, law in MANY.items() if "beyond" in name])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_rules_that_enumerate_refuse_in_a_sentence_of_the_same_kind(law, rule):
    for each in (law, *([Independent(law, 1)] if law.batch_shape else [])):
        with pytest.raises(ValueError, match=rf"{type(rule).__name__}\(limit=\d+\) would have to .* joint states: "):
            softdraw.expect(f if each is law else (lambda y: f(y).sum(-1)), each, rule, seed=0)


@pytest.mark.parametrize("law", [law for name, law in MANY.items() if "memory" not in name and "beyond" in name])
def test_no_limit_lets_exact_number_what_int64_cannot(law):
    with pytest.raises(ValueError, match="joint states: use SumAndSample"):
        softdraw.expect(f, law, softdraw.Exact(limit=10**400))


def test_the_logarithm_of_states_and_the_first_of_many():
    for n, k in itertools.product((1, 2, 7, 40), (0, 1, 2, 7, 40)):
        if k <= n:
            x = torch.zeros(n)
            assert math.isclose(softdraw.Subset(x, k).log_states, math.log(math.comb(n, k)), abs_tol=1e-9)
            assert math.isclose(softdraw.PlackettLuce(x, k).log_states, math.log(math.perm(n, k)), abs_tol=1e-9)
    at = MANY["beyond int64"].state(torch.tensor(10**6))
    want = next(itertools.islice(itertools.combinations(range(300), 150), 10**6, None))
    assert at.nonzero().flatten().tolist() == list(want)
