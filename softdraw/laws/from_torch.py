"""torch's laws as ours, with the probabilities that they were made from: a probability of zero stays zero."""

from __future__ import annotations

from torch import Tensor, distributions

from softdraw.laws.bernoulli import Bernoulli
from softdraw.laws.categorical import CategoricalLaw
from softdraw.laws.one_hot import OneHotCategorical


def from_torch(law: distributions.Distribution) -> CategoricalLaw | None:
    """``OneHotCategorical``, ``Categorical`` (as its one-hot law) and ``Bernoulli`` as ours; None for any other law."""
    if isinstance(law, (distributions.OneHotCategorical, distributions.Categorical)):
        probs = _given_probs(getattr(law, "_categorical", law))
        return OneHotCategorical(law.logits) if probs is None else OneHotCategorical(probs=probs)
    if isinstance(law, distributions.Bernoulli):
        probs = _given_probs(law)
        return Bernoulli(law.logits) if probs is None else Bernoulli(probs=probs)
    return None


def _given_probs(law: distributions.Distribution) -> Tensor | None:
    """The probabilities that the law was made from, if it was: torch's logits of a probability of 0 end at log(eps)."""
    probs = vars(law).get("probs")
    return probs if getattr(law, "_param", None) is probs else None
