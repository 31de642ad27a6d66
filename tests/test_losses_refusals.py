"""What losses refuse, and what their errors say."""

import math

import pytest
import torch
from loss_cases import logits

from softdraw import losses

REFUSED = [
    (lambda x: losses.bernoulli_nll(x.view(4, 1), torch.zeros(4)), ValueError, r"\(4, 1\), got \(4,\)"),
    (lambda x: losses.bernoulli_nll(x, torch.tensor([0, 1, 2, 0])), ValueError, "target must be from 0 to 1, got 2"),
    (lambda x: losses.bernoulli_nll(x, torch.full((4,), math.nan)), ValueError, "from 0 to 1, got nan"),
    (lambda x: losses.bernoulli_nll(x, torch.zeros(4), -1.0), ValueError, "pos_weight must be at least 0, got -1"),
    (
        lambda x: losses.bernoulli_nll(x.view(1, 2, 2), torch.zeros(1, 2, 2), torch.ones(2)),
        ValueError,
        "pos_weight must",
    ),
    (lambda x: losses.bernoulli_nll(x, torch.zeros(4), torch.ones(3)), ValueError, r"pos_weight .* got \(3,\)"),
    (lambda x: losses.bernoulli_nll(x.long(), torch.zeros(4)), TypeError, "logits must be floating"),
    (lambda x: losses.bernoulli_nll(x, 1.0), TypeError, "target must be a tensor, got float"),
    (lambda x: losses.bernoulli_nll(x, torch.zeros(4), mask=torch.ones(4)), TypeError, "mask must be a bool"),
    (lambda x: losses.bernoulli_nll(x, torch.zeros(4), weight=torch.ones(4, 1)), ValueError, r"weight .*\(4, 1\)"),
    (lambda x: losses.bernoulli_nll(x, torch.zeros(4), reduction="avg"), ValueError, "reduction must be .* got 'avg'"),
    (lambda x: losses.categorical_nll(x, torch.tensor(4)), ValueError, "target must be an index from 0 to 3, got 4"),
    (lambda x: losses.categorical_nll(x, torch.tensor(1.0)), TypeError, "integer indices, got torch.float32"),
    (lambda x: losses.categorical_nll(x.view(2, 2), torch.tensor([[0], [1]])), ValueError, r"got \(2, 1\)"),
    (lambda x: losses.categorical_nll(x.view(2, 2), torch.tensor([0])), ValueError, r"\(2,\), got \(1,\)"),
    (lambda x: losses.categorical_nll(x, torch.full((4,), 0.5)), ValueError, "each row of target must be 1, got 2"),
    (lambda x: losses.categorical_nll(x, torch.tensor([2.0, -1, 0, 0])), ValueError, "target must be from 0 to 1, got"),
    (lambda x: losses.kl_to_prior(x, torch.zeros(3)), ValueError, r"prior_logits must .* got \(3,\)"),
    (lambda x: losses.load_balance(x, torch.zeros(3)), ValueError, r"chosen must .* \(4,\), got \(3,\)"),
    (lambda x: losses.diversity(x.view(2, 2), group_dim=1), IndexError, "group_dim must be"),
    (lambda x: losses.keep_ratio(x, 1.5), ValueError, "ratio must be from 0 to 1, got 1.5"),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_a_refusal_names_the_argument_and_what_it_got(number):
    call, error, message = REFUSED[number]
    with pytest.raises(error, match=message):
        call(logits(4))


def test_compiled_code_checks_values_too():
    compiled = torch.compile(losses.bernoulli_nll, fullgraph=True, backend="aot_eager")
    with pytest.raises(RuntimeError, match="target must be from 0 to 1"):
        compiled(logits(3), torch.tensor([0.0, 2.0, 1.0]))
