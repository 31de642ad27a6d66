"""What a rule needs of a law, and the sentence that refuses another law."""

from __future__ import annotations

from enum import Enum
from typing import Any, Protocol

from torch import Tensor


class Need(Enum):
    """What a law may offer to a rule; the value completes the sentence "the rule needs ..."."""

    SAMPLES = "exact samples and log_prob"
    STATES = "a support that can be enumerated"
    FAMILY = "an exponential family, with mean and covariance_product"
    NOISE = "a categorical law, drawn as the argmax of Gumbel noise"
    BITS = "bits"


class Family(Protocol):
    """An exponential family p(z) = exp(<theta, z> - A(theta)) as a rule sees it; the event is the last dimension."""

    theta: Tensor

    @property
    def mean(self) -> Tensor:
        """grad A: the expectation of z."""
        ...

    def covariance_product(self, grad: Tensor) -> Tensor:
        """(Hessian of A) g: the covariance of z times a vector."""
        ...

    def tempered(self, tau: float | Tensor) -> Family:
        """The family at theta / tau."""
        ...


def check_serves(rule: Any, law: Any) -> None:
    """``law`` offers what ``rule`` needs, or a TypeError says what is missing and which rules serve the law."""
    if rule.needs in law.offers:
        return
    kind = type(rule).__mro__[1]  # Pathwise or ScoreFunction
    others = sorted(other.__name__ for other in kind.__subclasses__() if other.needs in law.offers)
    raise TypeError(
        f"rule {type(rule).__name__} does not serve {type(law).__name__}: it needs {rule.needs.value}. "
        f"Rules that serve it: {', '.join(others) or 'none of this kind'}"
    )
