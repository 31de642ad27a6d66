"""Every law, once; tests/test_laws_contract.py goes by property over this list. A new law is one line here."""

from __future__ import annotations

import torch

import softdraw
from tests.methods import one_hot_logits

MASK = torch.tensor([True, False, True, True])
LAWS = {
    "one-hot": lambda x: softdraw.OneHotCategorical(x),
    "masked one-hot": lambda x: softdraw.OneHotCategorical(x, MASK),
    "mixed one-hot": lambda x: softdraw.OneHotCategorical(x, uniform=0.1),
    "masked mixed one-hot": lambda x: softdraw.OneHotCategorical(x, MASK, uniform=0.3),
    "bits": lambda x: softdraw.Bernoulli(x),
    "masked bits": lambda x: softdraw.Bernoulli(x, MASK),
    "2 of 4": lambda x: softdraw.Subset(x, 2),
    "masked 2 of 4": lambda x: softdraw.Subset(x, 2, MASK),
    "0 of 4": lambda x: softdraw.Subset(x, 0),
    "4 of 4": lambda x: softdraw.Subset(x, 4),
    "orders": lambda x: softdraw.PlackettLuce(x),
    "first 2 of 4": lambda x: softdraw.PlackettLuce(x, 2),
    "orders that end": lambda x: softdraw.PlackettLuce(x, 4, MASK),
    "no place": lambda x: softdraw.PlackettLuce(x, 0),
}


def vector(law, sample):
    """A sample as what has a mean: itself, or the matrix of an order."""
    return law.matrix(sample) if isinstance(law, softdraw.PlackettLuce) else sample


def mean(law):
    """The mean of ``vector``, as the law has it."""
    return law.marginals() if isinstance(law, softdraw.PlackettLuce) else law.mean


def weighted(law, weight, samples):
    """Weights ``(N, *batch)`` times the vectors of samples ``(N, *batch, *event)``."""
    y = vector(law, samples)
    return weight.view(*weight.shape, *[1] * (y.dim() - weight.dim())) * y


def logits(dtype=torch.float64):
    """The parameters that every law of the list takes."""
    return one_hot_logits(3, 4, dtype=dtype)
