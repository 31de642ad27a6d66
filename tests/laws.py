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
}


def logits(dtype=torch.float64):
    """The parameters that every law of the list takes."""
    return one_hot_logits(3, 4, dtype=dtype)
