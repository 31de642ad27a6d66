"""What a score-function rule is, and what it sees: f, the law, and which of its variables f takes together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softdraw.arguments import row_ids
from softdraw.rules.conditional_noise import Noise

if TYPE_CHECKING:
    from softdraw.laws.law import Law


class ScoreFunction(ABC):
    """A rule for ``expect``: it needs values of f only, so f may be a black box."""

    binary_only = False

    @abstractmethod
    def estimate(self, objective: Objective) -> Tensor:
        """A tensor of shape ``batch`` whose value estimates E[f] and whose gradient estimates its gradient."""


@dataclass(frozen=True)
class Objective:
    """E[f] under ``law``, whose last ``joint`` batch dimensions are independent variables of one scalar f.

    Samples have the shape ``(S, *batch, *joint, *event)``, values of f the shape ``(S, *batch)``.
    """

    f: Callable[[Tensor], Any]
    law: Law
    joint: int
    seed: Tensor

    @property
    def batch(self) -> torch.Size:
        """The shape of one value of the objective."""
        shape = self.law.batch_shape
        return shape[: len(shape) - self.joint]

    def sample(self, samples: int) -> Tensor:
        """Exact samples, without gradient."""
        return self.law.sample((samples,), seed=self.seed)

    def log_prob(self, sample: Tensor) -> Tensor:
        """Joint log-probabilities, ``(S, *batch)``."""
        return self.total(self.law.log_prob(sample))

    def values(self, sample: Tensor) -> Tensor:
        """f at ``sample``; f may return anything that becomes a tensor of shape ``(S, *batch)``."""
        out = torch.as_tensor(self.f(sample), device=sample.device)
        expected = (*sample.shape[:1], *self.batch)
        if out.shape != expected:
            raise ValueError(
                f"f must map samples of shape {tuple(sample.shape)} to values of shape {expected}, got "
                f"{tuple(out.shape)}: where one value depends on several variables, wrap the law in "
                "torch.distributions.Independent(law, n)"
            )
        return out

    def total(self, x: Tensor) -> Tensor:
        """The sum over the joint variables."""
        return x.sum(tuple(range(-self.joint, 0))) if self.joint else x

    def per_variable(self, value: Tensor) -> Tensor:
        """A value per objective, shaped to broadcast over its joint variables."""
        return value.reshape(*value.shape, *[1] * self.joint)

    def scores(self, samples: int) -> tuple[Tensor, Tensor, Tensor, Noise]:
        """Logits, differentiable scores z, the one-hots of their argmax, and the noise behind them, ``(S, ..., C)``."""
        x = self.law.scores()
        x = x.expand(samples, *x.shape)
        noise = Noise(self.seed, row_ids(self.law.batch_shape, x.device).unsqueeze(0), drawn=True)
        z = x + noise.gumbel(x, 0)[0]
        return x, z, self.law.embed(self.sample(samples)).to(x.dtype), noise


def score(weight: Tensor, log_prob: Tensor) -> Tensor:
    """Zero, with the gradient weight * grad log_prob: what every score-function estimator adds to a value."""
    return weight * (log_prob - log_prob.detach())


def silent(x: Tensor) -> Tensor:
    """Zero, with the gradient of x."""
    return x - x.detach()
