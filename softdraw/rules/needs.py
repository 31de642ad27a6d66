"""What a rule may need of a law."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from torch import Tensor


class Need(Enum):
    """What a law may offer to a rule; the value completes the sentence "the rule needs ..."."""

    SAMPLES = "exact samples and log_prob"
    STATES = "a support that can be enumerated"
    FAMILY = "an exponential family, with mean and covariance_product"
    NOISE = "a categorical law, drawn as the argmax of Gumbel noise"
    SCORES = "Gumbel scores that a sample is read off, and that can be drawn given it and relaxed"
    BITS = "bits"
    ITEMS = "a law of k of n items"


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


class Scored(Protocol):
    """A law whose sample is read off the scores z = theta + G, as a rule sees it."""

    theta: Tensor

    def scores(self) -> Tensor:
        """theta in float32 or float64, -inf where forbidden, ``(*batch, C)``."""
        ...

    def condition(self, theta: Tensor, sample: Tensor, noise: Tensor) -> Tensor:
        """Scores given that ``sample`` is read off them, ``(..., C)``, from independent Gumbel noise of that shape;
        differentiable in ``theta``, the scores without noise."""
        ...

    def relax(self, scores: Tensor, tau: float | Tensor) -> Tensor:
        """The sample of these scores, relaxed, in the dtype of theta; it tends to the sample as tau falls."""
        ...


class Items(Family, Protocol):
    """A law of k of n items as a rule sees it."""

    k: int | Tensor  # of every row, or one for each

    @property
    def most(self) -> int:
        """The largest k."""
        ...
