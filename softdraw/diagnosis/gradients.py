"""Many independent gradients of one objective at once: what bias and variance are computed from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Independent

from softdraw.arguments import compute_dtype, prepare_rows, row_ids
from softdraw.laws import Law
from softdraw.rules import Exact, default
from softdraw.rules.pathwise import Pathwise
from softdraw.rules.score_function import Objective, ScoreFunction, count_states
from softdraw.seeds import seed_tensor
from softdraw.verbs import expect

_CHUNK = 2**22  # numbers of gradient, and of samples given to f, held at once
_COPY = 32  # bits of a row's id below the number of the copy that it is in


@dataclass
class Problem:
    """E[f] under ``law``, whose last ``joint`` batch dimensions share one value of f; counts the evaluations of f."""

    f: Callable[[Tensor], Any]
    law: Law
    joint: int
    rows: int | Tensor = 0
    evaluations: int = field(default=0, init=False)
    largest: float = field(default=0.0, init=False)  # value of f seen

    def __post_init__(self) -> None:
        if not callable(self.f):
            raise TypeError(f"f must be a function of the samples, got {type(self.f).__name__}")
        theta = self.law.scores().detach()
        if bool((theta.isnan() | (theta == math.inf)).any()):
            raise ValueError("law must have finite logits (or -inf, which forbids), got NaN or inf among them")
        if bool((self._ids() >= 2**_COPY).any()):
            raise ValueError(f"rows must be below 2**{_COPY} in diagnose: the copies of the batch are numbered above")

    def gradients(self, rule: Pathwise | ScoreFunction, copies: int, generator: torch.Generator) -> Tensor:
        """Independent gradients for the logits, ``(copies, logits)``: the law is expanded, a copy each."""
        shape = (copies, *self.law.theta.shape)
        leaf = self.law.theta.detach().expand(shape).clone().requires_grad_()
        many = self.law.replace(leaf, None if self.law.allowed is None else self.law.allowed.expand(shape))
        ids = self._ids()
        rows = ids + (torch.arange(copies, device=ids.device) << _COPY).view(-1, *[1] * ids.dim())
        self.evaluations = 0

        def f(y: Tensor) -> Tensor:  # (S, copies, *batch, *event) is S * copies samples for the user's f
            self.evaluations += y.shape[0]
            value = self._objective().values(y.flatten(0, 1))
            self._check_values(value, y.flatten(0, 1), rule)
            self._see(value)
            return value.unflatten(0, y.shape[:2])

        law = Independent(many, self.joint) if self.joint else many
        estimate = expect(f, law, rule, generator=generator, rows=rows)
        return self._gradient(estimate, leaf, rule).flatten(1).double()

    def exact(self, limit: int) -> Tensor:
        """The exact gradient, ``(logits,)``; f is evaluated without a graph."""
        leaf = self.law.theta.detach().clone().requires_grad_()
        law = self.law.replace(leaf, self.law.allowed)

        def f(y: Tensor) -> Any:
            with torch.no_grad():
                value = self._objective().values(y)
            self._see(value)
            return value

        rule = Exact(limit, chunk=max(1, min(4096, _CHUNK // max(1, leaf.numel() * self._width()))))
        value = expect(f, Independent(law, self.joint) if self.joint else law, rule)
        if not bool(value.isfinite().all()):  # f may be infinite at a state that is never drawn
            raise ValueError("f must be finite to be diagnosed: it is NaN or infinite at a sample that can be drawn")
        return torch.autograd.grad(value.sum(), leaf)[0].flatten().double()

    def rounding(self) -> float:
        """How far the sum over states may be off, which is all that is left of a gradient where f is constant."""
        return 16 * torch.finfo(compute_dtype(self.law.theta.dtype)).eps * self.largest

    def _see(self, value: Tensor) -> None:
        finite = value.detach()[value.isfinite()].abs()
        self.largest = max(self.largest, float(finite.max())) if finite.numel() else self.largest

    def is_differentiable(self, seed: int) -> bool:
        """Whether the graph of a value of f leads back to its sample."""
        law = self.law.replace(self.law.theta.detach().clone().requires_grad_(), self.law.allowed)
        if law.rule.needs not in law.offers:
            return False
        y = law.rsample((1,), seed=seed, rows=self.rows)
        return default.probe(self.f, y)[1]

    def states(self) -> int:
        """The number of joint states of one value of f."""
        return count_states(self.law, self.joint)

    def copies(self, samples: int, groups: int = 25) -> int:
        """How many gradients one call computes, the same on every machine: a share of the samples, within the
        memory."""
        return max(1, min(math.ceil(samples / groups), _CHUNK // max(1, self.law.theta.numel() * self._width())))

    def _width(self) -> int:
        """Numbers in one sample of a variable, as rules hold it: a bit is two categories."""
        return max(2, self.law.event_shape.numel())

    def _ids(self) -> Tensor:
        """The id of every row, ``batch``."""
        shape, device = self.law.batch_shape, self.law.theta.device
        ids = prepare_rows(self.rows, shape, device)
        return (row_ids(shape, device) if ids is None else ids).squeeze(-1)

    def _objective(self) -> Objective:
        """f with the checks of what it returns."""
        return Objective(self.f, self.law, self.joint, seed_tensor(0, self.law.theta.device))

    def _check_values(self, value: Tensor, y: Tensor, rule: Any) -> None:
        bad = ~value.isfinite()
        if not bool(bad.any()):
            return
        where = bad.nonzero()[0].tolist()
        at = f" at the sample {y[where[0]].tolist()}" if y[0].numel() <= 16 else ""
        raise ValueError(
            f"f must be finite to be diagnosed, got {value[tuple(where)].item()} and in all {int(bad.sum())} values of "
            f"{value.numel()} that are NaN or infinite, first{at} with {type(rule).__name__}"
        )

    def _gradient(self, estimate: Tensor, leaf: Tensor, rule: Any) -> Tensor:
        g = torch.autograd.grad(estimate.sum(), leaf, allow_unused=True)[0] if estimate.requires_grad else None
        if g is None:
            raise ValueError(
                f"f gives no gradient at its sample, and {type(rule).__name__} is a pathwise rule: "
                "leave it out, or give score-function rules only"
            )
        if not bool(g.isfinite().all()):
            raise ValueError(
                f"f must have a finite gradient at its samples for {type(rule).__name__}, got NaN or inf: "
                "fix it (sqrt and log at 0 are the usual cause), or give score-function rules only"
            )
        return g


Sums = tuple[int, Tensor, float, float]  # count, sum of g, sum of |g|^2, sum of cosines


@dataclass
class Moments:
    """Sums over gradients, kept in groups, so that any statistic of them gets an error bar by the jackknife."""

    groups: list[Sums] = field(default_factory=list)

    def add(self, g: Tensor, truth: Tensor | None) -> None:
        """One group of gradients, ``(n, logits)``, and their cosines with the truth; a zero gradient has cosine 0."""
        squares, cosines = g.square().sum(1), torch.zeros((), device="cpu")
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
