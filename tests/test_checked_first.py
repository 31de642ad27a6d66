"""Bad values are refused where they are given, before anything is drawn: forbidden samples, ids, temperatures."""

from __future__ import annotations

import math

import pytest
import torch
from methods import PATHWISE

import softdraw
from softdraw.cli import run as softdraw_command

MASK = torch.tensor([[True, False, True], [True, True, True]])
X = torch.tensor([[1.0, 2.0, 3.0], [-math.inf, 0.0, 1.0]])
LAWS = {
    "one-hots, by mask": (softdraw.OneHotCategorical(X, MASK), [[0.0, 1, 0], [0, 1, 0]], [0]),
    "one-hots, by -inf": (softdraw.OneHotCategorical(X, MASK), [[0.0, 0, 1], [1, 0, 0]], [1]),
    "bits, by mask": (softdraw.Bernoulli(torch.zeros(2), torch.tensor([True, False])), [1.0, 1.0], [1]),
    "bits, by inf": (softdraw.Bernoulli(torch.tensor([math.inf, 0.0])), [0.0, 1.0], [0]),
    "subsets": (softdraw.Subset(X, 2, MASK), [[1.0, 0, 1], [1, 1, 0]], [1]),
}


@pytest.mark.parametrize("name", LAWS)
def test_a_value_that_is_forbidden_is_refused(name):
    law, value, first = LAWS[name]
    value = torch.tensor(value)
    with pytest.raises(ValueError, match=rf"value must be a sample that the law can draw, got .* at \[{first[0]}\]"):
        softdraw.draw(law, value=value)
    both = torch.stack((law.sample(seed=0), value))  # of an enumeration, which has forbidden samples too
    assert torch.equal(softdraw.draw(law, value=both), both)
    strict = type(law)(law.theta, *([2] if name == "subsets" else []), mask=law.allowed, validate_args=True)
    with pytest.raises(ValueError, match=rf"at \[1, {first[0]}\]"):
        softdraw.draw(strict, value=both)
    for seed in range(3):
        drawn = law.sample((4,), seed=seed)
        assert torch.equal(softdraw.draw(law, value=drawn), drawn)


def test_validate_args_false_takes_a_forbidden_value():
    law = softdraw.OneHotCategorical(X, MASK, validate_args=False)
    value = torch.tensor([[0.0, 1, 0], [0, 1, 0]])
    assert torch.equal(softdraw.draw(law, value=value), value)


@pytest.mark.parametrize("first", [2**62, 2**61 + 1, -(2**61) - 1])
def test_ids_of_samples_leave_room_for_their_rows(first):
    """Four rows a sample: ids 4 i to 4 i + 3. Wrapped around, two samples would have the same noise."""
    x, ids = torch.zeros(2, 4, 3), torch.tensor([0, first])
    with pytest.raises(ValueError, match=r"rows must be ids of samples whose 4 rows each have ids below 2\*\*63"):
        softdraw.gumbel_softmax(x, seed=0, rows=ids)
    ids = torch.tensor([2**61 - 1, -(2**61)])  # the last that fit
    y = softdraw.gumbel_max(x, seed=0, rows=ids)
    each = torch.tensor([[4 * i + j for j in range(4)] for i in ids.tolist()])
    assert torch.equal(y, softdraw.gumbel_max(x, seed=0, rows=each))


@pytest.mark.parametrize("bad", [-1.0, 0.0, math.nan, math.inf])
def test_a_tensor_tau_is_refused_when_the_rule_is_made_or_used(bad):
    """Not in the backward pass, whose traceback does not show the line of the draw. The tensor may change in
    between."""
    makers = {type(rule) for rule in PATHWISE if hasattr(rule, "tau")}
    assert len(makers) > 5
    logits = torch.zeros(2, 3, requires_grad=True)
    for maker in makers:
        with pytest.raises(ValueError, match=f"tau of {maker.__name__} must be positive and finite"):
            maker(tau=torch.tensor([[1.0], [bad]]))
        tau = torch.ones(2, 1)
        rule = maker(tau=tau)
        tau[1] = bad
        with pytest.raises(ValueError, match=f"tau of {maker.__name__} must be positive and finite"):
            softdraw.draw(logits, rule)
        with pytest.raises(ValueError, match=f"tau of {maker.__name__} must be positive and finite"):
            softdraw.draw(softdraw.OneHotCategorical(logits), rule)


def test_a_given_sample_of_far_logits_has_its_limit():
    """Logits of opposite signs near the largest float32: given the third category, it and the first are level."""
    x = torch.tensor([3e38, -3e38, 0.0], requires_grad=True)
    for category, other in ((0, None), (1, 0), (2, 0)):
        value = torch.eye(3)[category]
        y = softdraw.draw(softdraw.OneHotCategorical(x), softdraw.GumbelSoftmax(), value=value, seed=0)
        expected = value if other is None else (value + torch.eye(3)[other]) / 2
        assert torch.equal(y, expected)
        (g,) = torch.autograd.grad(y[category], x)
        assert bool(g.isfinite().all())


def test_more_threads_than_processors_are_refused(capsys, tmp_path):
    options = ["--sizes", "2x2", "--threads", "99999", "--out", str(tmp_path)]
    assert softdraw_command(["bench", *options]) == 2
    assert "--threads '99999': this machine has" in capsys.readouterr().err
