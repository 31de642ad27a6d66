"""torch's laws as ours, with the probabilities that they were made from: a probability of zero stays zero."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, distributions
from torch.distributions.utils import probs_to_logits

from softdraw.laws.bernoulli import Bernoulli, log_odds
from softdraw.laws.categorical import CategoricalLaw
from softdraw.laws.one_hot import OneHotCategorical, parameters


def from_torch(law: distributions.Distribution) -> CategoricalLaw | None:
    """``OneHotCategorical``, ``Categorical`` (as its one-hot law) and ``Bernoulli`` as ours; None for any other law."""
    if isinstance(law, (distributions.OneHotCategorical, distributions.Categorical)):
        held = getattr(law, "_categorical", law)
        return OneHotCategorical(_logits(held, lambda p: parameters(None, p), is_binary=False))
    if isinstance(law, distributions.Bernoulli):
        return Bernoulli(_logits(law, log_odds, is_binary=True))
    return None


def _logits(law: distributions.Distribution, exact: Callable[[Tensor], Tensor], is_binary: bool) -> Tensor:
    """The logits of a law: of the probabilities that it was made from, where it was.

    A law keeps what it was made from and, once asked, the other. torch computes logits from probabilities clamped to
    eps, so where its logits are those, the exact ones take their place.
    """
    held = vars(law)
    if "probs" not in held:
        return law.logits  # pyright: ignore[reportAttributeAccessIssue]
    probs = held["probs"]
    if "logits" not in held:
        return exact(probs)
    return torch.where(held["logits"] == probs_to_logits(probs, is_binary), exact(probs), held["logits"])
