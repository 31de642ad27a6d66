"""Selectors that are trained with a network: k-subsets under a rule, and the concrete selector.

    k-subset   z ~ p(z) = exp(<theta, z> / tau) / Z over k-hot z        the network sees x * z, all n inputs
    concrete   m_j = softmax((theta_j + G_j) / tau), j = 1, ..., k       the network sees <m_j, x>, k inputs

Each row of the batch has draws of its own; one theta serves all rows, and its gradient is their mean. At the end the
k-subset is the mode of the law, and the concrete selector takes the argmax of each theta_j: some may be equal.

Source: Balın, Abid and Zou (2019), "Concrete autoencoders: differentiable feature selection and reconstruction".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from softdraw.laws import Subset
from softdraw.recipes.selector.model import Networks
from softdraw.rules.gumbel_softmax import GumbelSoftmax
from softdraw.rules.reinforce import Reinforce
from softdraw.rules.score_function import ScoreFunction
from softdraw.rules.zgr import ZGR
from softdraw.verbs import draw, expect

_KEPT = 0.9  # of Reinforce's running baseline, at each step


class Selector(nn.Module, ABC):
    """``theta`` are the logits, one set for each of R seeds.

    Adam moves a logit by about its learning rate a step, whatever the size of the gradient, so noise alone carries it
    as far as rate times the root of the number of steps: ``drift``, of which a rule of more variance bears less.
    """

    theta: nn.Parameter
    drift: float
    inputs: int  # of the network

    @abstractmethod
    def losses(self, networks: Networks, x: Tensor, y: Tensor, tau: float, seed: Tensor, ids: Tensor) -> Tensor:
        """The loss of each row, ``(R, B)``, with gradients for the networks and for theta.

        Args:
            networks: one for each seed.
            x, y: rows, ``(R, B, n)``, and their classes, ``(R, B)``.
            tau: the temperature of the law.
            seed, ids: key the draws: of the step, and of each row, ``(R, B)``.
        """

    @abstractmethod
    def decided(self, x: Tensor) -> Tensor:
        """What the network sees of ``x`` when nothing is drawn: ``(R, B, inputs)``."""

    @abstractmethod
    def chosen(self) -> Tensor:
        """The features, ``(R, n)`` bool."""


class KSubset(Selector):
    """A law of k-subsets for each seed, which starts uniform."""

    def __init__(self, rule: Any, k: int, seeds: int, features: int) -> None:
        super().__init__()
        self.rule, self.k, self.inputs = rule, k, features
        self.drift = 0.3 if isinstance(rule, (ZGR, ScoreFunction)) else 1.5
        self.theta = nn.Parameter(torch.zeros(seeds, features))
        self.register_buffer("baseline", torch.full((seeds, 1), float("nan")))  # of Reinforce: the loss so far

    def losses(self, networks: Networks, x: Tensor, y: Tensor, tau: float, seed: Tensor, ids: Tensor) -> Tensor:
        law = Subset((self.theta / tau).unsqueeze(1).expand(-1, x.shape[1], -1), self.k)
        if not isinstance(self.rule, ScoreFunction):
            return networks.losses(x * draw(law, self.rule, seed=seed, rows=ids), y)
        rule = self.rule
        if isinstance(rule, Reinforce):
            rule = replace(rule, baseline=torch.where(self.baseline.isnan(), 0, self.baseline))
        losses = expect(lambda z: networks.losses(x * z, y), law, rule, seed=seed, rows=ids)
        now = losses.detach().mean(-1, keepdim=True)
        self.baseline = torch.where(self.baseline.isnan(), now, _KEPT * self.baseline + (1 - _KEPT) * now)
        return losses

    @torch.no_grad()
    def decided(self, x: Tensor) -> Tensor:
        return x * self.chosen().unsqueeze(1)

    @torch.no_grad()
    def chosen(self) -> Tensor:
        return Subset(self.theta, self.k).mode == 1


class Concrete(Selector):
    """k independent laws over the features for each seed; they start near uniform, unequal to be told apart."""

    def __init__(self, k: int, seeds: int, features: int, generator: torch.Generator) -> None:
        super().__init__()
        self.k = self.inputs = k
        self.drift = 3.0
        self.theta = nn.Parameter(0.01 * torch.randn(seeds, k, features, generator=generator))

    def losses(self, networks: Networks, x: Tensor, y: Tensor, tau: float, seed: Tensor, ids: Tensor) -> Tensor:
        logits = self.theta.unsqueeze(1).expand(-1, x.shape[1], -1, -1)
        each = ids.unsqueeze(-1) * self.k + torch.arange(self.k, device=ids.device)
        return networks.losses(_picked(draw(logits, GumbelSoftmax(tau), seed=seed, rows=each), x), y)

    @torch.no_grad()
    def decided(self, x: Tensor) -> Tensor:
        return _picked(nn.functional.one_hot(self.theta.argmax(-1), x.shape[-1]).unsqueeze(1).to(x.dtype), x)

    @torch.no_grad()
    def chosen(self) -> Tensor:
        return torch.zeros(self.theta[:, 0].shape, dtype=torch.bool, device=self.theta.device).scatter(
            -1, self.theta.argmax(-1), True
        )


def _picked(m: Tensor, x: Tensor) -> Tensor:
    """<m_j, x>: ``(..., k, n)`` and ``(..., n)`` -> ``(..., k)``."""
    return (m @ x.unsqueeze(-1)).squeeze(-1)
