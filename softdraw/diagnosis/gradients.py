"""Many independent gradients of one objective at once: what bias and variance are computed from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Independent

from softdraw.draw import expect
from softdraw.laws import Law
from softdraw.rules import Exact
from softdraw.rules.pathwise import Pathwise
from softdraw.rules.score_function import ScoreFunction, count_states

_CHUNK = 2**22  # numbers of gradient, and of samples given to f, held at once


@dataclass
class Problem:
    """E[f] under ``law``, whose last ``joint`` batch dimensions share one value of f; counts the evaluations of f."""

    f: Callable[[Tensor], Any]
    law: Law
    joint: int
    evaluations: int = field(default=0, init=False)

    def gradients(self, rule: Pathwise | ScoreFunction, copies: int, generator: torch.Generator) -> Tensor:
        """Independent gradients for the logits, ``(copies, logits)``: the law is expanded, a copy each."""
        shape = (copies, *self.law.theta.shape)
        leaf = self.law.theta.detach().expand(shape).clone().requires_grad_()
        many = self.law.replace(leaf, None if self.law.allowed is None else self.law.allowed.expand(shape))
        self.evaluations = 0

        def f(y: Tensor) -> Tensor:  # (S, copies, *batch, *event) is S * copies samples for the user's f
            self.evaluations += y.shape[0]
            value = torch.as_tensor(self.f(y.flatten(0, 1)), device=y.device)
            if isinstance(rule, Pathwise) and not value.requires_grad:
                raise ValueError(
                    f"f gives no gradient at its sample, and {type(rule).__name__} is a pathwise rule: "
                    "leave it out, or give score-function rules only"
                )
            return value.unflatten(0, y.shape[:2])

        estimate = expect(f, Independent(many, self.joint) if self.joint else many, rule, generator=generator)
        return torch.autograd.grad(estimate.sum(), leaf)[0].flatten(1).double()

    def exact(self, limit: int) -> Tensor:
        """The exact gradient, ``(logits,)``; f is evaluated without a graph."""
        leaf = self.law.theta.detach().clone().requires_grad_()
        law = self.law.replace(leaf, self.law.allowed)

        def f(y: Tensor) -> Any:
            with torch.no_grad():
                return self.f(y)

        rule = Exact(limit, chunk=max(1, min(4096, _CHUNK // max(1, leaf.numel() * self.law.states))))
        value = expect(f, Independent(law, self.joint) if self.joint else law, rule)
        return torch.autograd.grad(value.sum(), leaf)[0].flatten().double()

    def states(self) -> int:
        """The number of joint states of one value of f."""
        return count_states(self.law, self.joint)

    def copies(self, samples: int, groups: int = 25) -> int:
        """Gradients a call, the same on every machine: a share of the samples, and no more than memory bears."""
        return max(1, min(math.ceil(samples / groups), _CHUNK // max(1, self.law.theta.numel() * self.law.states)))


Sums = tuple[int, Tensor, float, float]  # count, sum of g, sum of |g|^2, sum of cosines


@dataclass
class Moments:
    """Sums over gradients, kept in groups, so that any statistic of them gets an error bar by the jackknife."""

    groups: list[Sums] = field(default_factory=list)

    def add(self, g: Tensor, truth: Tensor | None) -> None:
        """One group of gradients, ``(n, logits)``, and their cosines with the truth; a zero gradient has cosine 0."""
        squares, cosines = g.square().sum(1), torch.zeros(())
        if truth is not None:
            norm = squares.sqrt() * truth.norm()
            cosines = torch.where(norm > 0, g @ truth / torch.where(norm > 0, norm, 1), 0)
        self.groups.append((len(g), g.sum(0), squares.sum().item(), cosines.sum().item()))

    @property
    def count(self) -> int:
        """Gradients so far."""
        return sum(n for n, *_ in self.groups)

    def sums(self) -> Sums:
        """The sums over all groups."""
        n, total, squares, cosines = zip(*self.groups, strict=True)
        return sum(n), torch.stack(total).sum(0), sum(squares), sum(cosines)

    def jackknife(self, statistic: Callable[[Sums], float]) -> tuple[float, float]:
        """A statistic of the sums, and its standard error by leaving out each group."""
        n, total, squares, cosines = sums = self.sums()
        m = len(self.groups)
        left = [statistic((n - a, total - b, squares - c, cosines - d)) for a, b, c, d in self.groups]
        centre = sum(left) / m
        return statistic(sums), math.sqrt((m - 1) / m * sum((x - centre) ** 2 for x in left))


def variance(n: int, total: Tensor, squares: float) -> float:
    """E|g - E g|^2, unbiased."""
    return max(squares - total.square().sum().item() / n, 0.0) / max(n - 1, 1)
