"""The laws of gates, one class each: how one is drawn, decided, and how likely it is to be open."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from softdraw.laws import Bernoulli
from softdraw.nn.noise import logistic, normal
from softdraw.rules.pathwise import Pathwise


class GateLaw(Protocol):
    """What ``Gate`` asks of a law; theta is float32 or float64 and of the shape of the gates."""

    start: float  # of the parameter

    def draw(self, theta: Tensor, rule: Pathwise | None, mask: Tensor | None, seed: Tensor, rows: Tensor) -> Tensor:
        """Gates from 0 to 1, differentiable."""
        ...

    def decide(self, theta: Tensor) -> Tensor:
        """The gates of evaluation."""
        ...

    def open_logits(self, theta: Tensor) -> Tensor:
        """log P(z > 0) - log P(z = 0)."""
        ...


class HardConcrete:
    r"""z = min(1, max(0, s (zeta - gamma) + gamma)), s = sigmoid((log u - log(1 - u) + theta) / beta).

    Louizos, Welling and Kingma (2018), eqs. 10 to 13, with the constants of their section 4.
    """

    beta, gamma, zeta = 2 / 3, -0.1, 1.1
    start = 0.0

    def draw(self, theta: Tensor, rule: Pathwise | None, mask: Tensor | None, seed: Tensor, rows: Tensor) -> Tensor:
        """The stretched and clipped concrete variable of keyed logistic noise."""
        return self._stretched(torch.sigmoid((logistic(theta, seed, rows) + theta) / self.beta))

    def decide(self, theta: Tensor) -> Tensor:
        """Equation 13: without noise, and without beta."""
        return self._stretched(torch.sigmoid(theta))

    def open_logits(self, theta: Tensor) -> Tensor:
        """Equation 12: P(z > 0) = sigmoid(theta - beta log(-gamma / zeta))."""
        return theta - self.beta * math.log(-self.gamma / self.zeta)

    def _stretched(self, s: Tensor) -> Tensor:
        return (s * (self.zeta - self.gamma) + self.gamma).clamp(0, 1)


class Gaussian:
    """z = min(1, max(0, theta + sigma eps)): Yamada et al. (2020), eq. 4, with the sigma of their experiments."""

    sigma = 0.5
    start = 0.5

    def draw(self, theta: Tensor, rule: Pathwise | None, mask: Tensor | None, seed: Tensor, rows: Tensor) -> Tensor:
        """The clipped mean plus keyed normal noise."""
        eps = normal(theta.unsqueeze(-1), seed, rows).squeeze(-1)
        return (theta + self.sigma * eps).clamp(0, 1)

    def decide(self, theta: Tensor) -> Tensor:
        """The clipped mean."""
        return theta.clamp(0, 1)

    def open_logits(self, theta: Tensor) -> Tensor:
        """P(z > 0) is the normal distribution function of theta / sigma."""
        x = theta / self.sigma
        return torch.special.log_ndtr(x) - torch.special.log_ndtr(-x)


class Bit:
    """z ~ Bernoulli(sigmoid(theta)), with the gradient of a rule."""

    start = 0.0

    def draw(self, theta: Tensor, rule: Pathwise | None, mask: Tensor | None, seed: Tensor, rows: Tensor) -> Tensor:
        """Exact bits."""
        return Bernoulli(theta, mask).draw_with(rule, (), None, seed, rows)  # pyright: ignore[reportArgumentType]

    def decide(self, theta: Tensor) -> Tensor:
        """1 where it is likelier."""
        return Bernoulli(theta).mode

    def open_logits(self, theta: Tensor) -> Tensor:
        """theta itself."""
        return theta


LAWS: dict[str, GateLaw] = {"hard-concrete": HardConcrete(), "bernoulli": Bit(), "gaussian": Gaussian()}
