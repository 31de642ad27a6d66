"""Rules as objects: equality, hashes, copies, pickles, and errors of what is given to them."""

import copy
import pickle

import pytest
import torch

import softdraw
from tests.methods import PATHWISE, SCORE, label


@pytest.mark.parametrize("rule", PATHWISE + SCORE, ids=label)
def test_a_rule_equals_its_copy(rule):
    again = copy.deepcopy(rule)
    assert again == rule
    assert hash(again) == hash(rule)
    assert rule != "rule"
    if not isinstance(rule, softdraw.Relax):  # whose control is a lambda here
        assert pickle.loads(pickle.dumps(rule)) == rule
    assert sum(other == rule for other in PATHWISE + SCORE) == 1


def test_rules_with_tensors_are_compared_by_value():
    one = softdraw.ReinMax(torch.ones(2))
    assert one == softdraw.ReinMax(torch.ones(2))
    assert one != softdraw.ReinMax(torch.tensor([1.0, 2.0]))
    assert one != softdraw.ReinMax(torch.ones(2, dtype=torch.float64))
    assert one != softdraw.ReinMax(1.0)
    assert len({one, softdraw.ReinMax(torch.ones(2)), softdraw.ReinMax(1.0), softdraw.ReinMax(1.5)}) == 3
    assert softdraw.ReinMax(1.0) == softdraw.ReinMax(1)


def test_the_rule_that_shares_its_name_with_a_module_says_so():
    for call in (
        lambda: softdraw.GumbelSoftmax(tau=1.0, hard=True),
        lambda: softdraw.GumbelSoftmax(1.0, True),
        lambda: softdraw.GumbelSoftmax(1.0)(torch.zeros(3)),
    ):
        with pytest.raises(TypeError, match=r"a gradient rule.*softdraw\.nn\.GumbelSoftmax"):
            call()


def test_an_error_writes_the_argument_and_not_what_it_belongs_to():
    for make, words in (
        (
            lambda: softdraw.IMLE(torch.tensor(1.0)),
            r"lam of IMLE must be a number, got Tensor tensor\(1.\): write lam.item",
        ),
        (lambda: softdraw.IMLE(tau=torch.tensor(1.0)), "tau of IMLE .*: write tau.item"),
        (lambda: softdraw.Exact(torch.tensor(1)), r"limit of Exact must be an int, .*: write limit.item\(\)"),
        (lambda: softdraw.ReinMax(torch.tensor(1)), r"tau of ReinMax must be floating point, .*: write tau.float\(\)"),
    ):
        with pytest.raises(TypeError, match=words):
            make()
