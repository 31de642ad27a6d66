"""What a score-function rule is, and what it sees: f, the law, and which of its variables f takes together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import log, prod
from typing import Any, ClassVar

import torch
from torch import Tensor

from softdraw.arguments import compute_dtype, row_ids
from softdraw.checks import check_device
from softdraw.rules.conditional_noise import Noise
from softdraw.rules.needs import Need
from softdraw.rules.rule import Rule
from softdraw.seeds import keyed


class ScoreFunction(Rule, ABC):
    """A rule for ``expect``: it needs values of f only, so f may be a black box. ``needs`` as in ``Pathwise``."""

    needs: ClassVar[Need] = Need.SAMPLES
    serves: ClassVar[str] = "for softdraw.expect(f, law, rule)"

    @abstractmethod
    def estimate(self, objective: Objective) -> Tensor:
        """A tensor of shape ``batch`` whose value estimates E[f] and whose gradient estimates its gradient.

        ``objective.sample(S)`` draws, ``objective.values(y)`` evaluates f at samples, ``objective.log_prob(y)`` is
        their joint log-probability. A rule usually returns the mean of ``values + score(weight, log_prob)`` over the
        samples: ``score`` is zero and has the gradient weight * grad log p. Where f sees several variables at once,
        ``objective.total`` sums over them and ``objective.per_variable`` gives them all a copy of one value.
        """


@dataclass(frozen=True)
class Objective:
    """E[f] under ``law``, whose last ``joint`` batch dimensions are independent variables of one scalar f.

    Samples have the shape ``(S, *batch, *joint, *event)``, values of f the shape ``(S, *batch)``.
    """

    f: Callable[[Tensor], Any]
    law: Any  # a Law: rules do not import laws
    joint: int
    seed: Any  # a 0-d tensor, or the seeds of samples as they were given
    rows: int | Tensor = 0

    @property
    def batch(self) -> torch.Size:
        """The shape of one value of the objective."""
        shape = self.law.batch_shape
        return shape[: len(shape) - self.joint]

    @property
    def variables(self) -> torch.Size:
        """The shape of the variables that one value depends on."""
        shape = self.law.batch_shape
        return shape[len(shape) - self.joint :]

    def sample(self, samples: int) -> Tensor:
        """Exact samples, without gradient."""
        return self.law.sample((samples,), seed=self.seed, rows=self.rows)

    def log_prob(self, sample: Tensor) -> Tensor:
        """Joint log-probabilities, ``(S, *batch)``, float32 or float64: not yet rounded to the dtype of the logits."""
        return self.total(self.law.log_prob_wide(sample))

    def values(self, sample: Tensor) -> Tensor:
        """f at ``sample``; a copy, since an f that works in place would change what the rule needs afterwards."""
        return self.checked(self.f(sample if sample.requires_grad else sample.clone()), sample)

    def checked(self, out: Any, sample: Tensor) -> Tensor:
        """What f returned at ``sample``: anything that becomes a tensor of real numbers of shape ``(S, *batch)``."""
        try:
            out = torch.as_tensor(out, device=sample.device)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"f must return a tensor or numbers, got {type(out).__name__}") from None
        if out.is_complex():
            raise TypeError(f"f must return real numbers, got a tensor of {out.dtype}")
        expected = (*sample.shape[:1], *self.batch)
        if out.shape != expected:
            raise ValueError(
                f"f must map samples of shape {tuple(sample.shape)} to values of shape {expected}, got "
                f"{tuple(out.shape)}: where one value depends on several variables, wrap the law in "
                "torch.distributions.Independent(law, n)"
            )
        return out.to(torch.float64 if out.dtype == torch.float64 else compute_dtype(self.law.theta.dtype))

    def total(self, x: Tensor) -> Tensor:
        """The sum over the joint variables."""
        return x.sum(tuple(range(-self.joint, 0))) if self.joint else x

    def per_variable(self, value: Tensor) -> Tensor:
        """A value per objective, shaped to broadcast over its joint variables."""
        return value.reshape(*value.shape, *[1] * self.joint)

    def scores(self, samples: int) -> tuple[Tensor, Tensor, Noise]:
        """Scores without noise, the differentiable scores z that ``sample`` is read off, and the noise behind them,
        ``(S, ..., C)``."""
        x = self.law.scores()
        x = x.expand(samples, *x.shape)
        key, ids = self._keyed()
        ids = row_ids(self.law.batch_shape, x.device) if ids is None else ids
        noise = Noise(key, ids.unsqueeze(0), drawn=True)
        return x, x + noise.gumbel(x), noise

    def states(self) -> int:
        """The number of joint states of the variables that one value of f depends on."""
        return count_states(self.law, self.joint)

    def states_for(self, rule: Rule, limit: int, work: str, most: int, instead: str) -> int:
        """``states``, which are within the ``limit`` of a ``rule`` and below the ``most`` that it could take."""
        states = self.states()
        if states <= min(limit, most):
            return states
        way = "raise the limit, or use" if states <= most else "use"
        raise ValueError(
            f"{type(rule).__name__}(limit={limit}) would have to {work} {states:.3g} joint states: {way} {instead}"
        )

    def joint_states(self, index: Tensor) -> Tensor:
        """The joint states numbered ``index`` (broadcasts to ``(N, *batch)``), as samples for f."""
        base, n = self.law.states, prod(self.variables)
        digits = base ** torch.arange(n - 1, -1, -1, device=index.device).view(self.variables)
        state = self.per_variable(index) // digits % base
        return self.law.state(state.expand(*index.shape[:1], *self.law.batch_shape))

    def batch_keys(self) -> tuple[Tensor, Tensor | None]:
        """Seed and id for every value of the objective, where a rule draws once for all of its variables."""
        key, ids = self._keyed()
        if not self.joint:
            return key, ids
        key = key.flatten(len(self.batch), -2)[..., 0, :] if key.dim() else key
        if ids is None:
            return key, ids
        first = ids.flatten(len(self.batch), -2)[..., 0, :]
        each_has_its_own = isinstance(self.rows, Tensor) and self.rows.dim() > len(self.batch)
        # Sample i has the rows i n, i n + 1, ...
        return key, first if each_has_its_own else first // prod(self.variables)

    def _keyed(self) -> tuple[Tensor, Tensor | None]:
        return keyed(self.law.theta, self.law.batch_shape, self.seed, None, self.rows)


def count_states(law: Any, joint: int) -> int:
    """The number of joint states of a law's last ``joint`` batch dimensions; larger numbers are 10^300."""
    shape, most = law.batch_shape, 10**300  # a number that messages can show
    return law.states ** prod(shape[len(shape) - joint :]) if states_within(law, joint, most) else most


def states_within(law: Any, joint: int, limit: int) -> bool:
    """Whether there are at most ``limit`` joint states that can be enumerated, without forming a number of a million
    digits."""
    if Need.STATES not in law.offers:
        return False
    shape = law.batch_shape
    return prod(shape[len(shape) - joint :]) * law.log_states <= log(limit) + 1e-9


def score(weight: Tensor, log_prob: Tensor) -> Tensor:
    """Zero, with the gradient weight * grad log_prob: what every score-function estimator adds to a value."""
    return weight * (log_prob - log_prob.detach())


def silent(x: Tensor) -> Tensor:
    """Zero, with the gradient of x."""
    return x - x.detach()


def check_broadcasts(name: str, weight: float | Tensor, value: Tensor) -> None:
    """``weight`` is a number, or a tensor that broadcasts to the values of f, ``(S, *batch)``, on their device."""
    if not isinstance(weight, Tensor):
        return
    if weight.dim() or weight.is_meta:
        check_device(name, weight, value.device, "f")
    tail = value.shape[max(value.dim() - weight.dim(), 0) :]
    if weight.dim() > value.dim() or any(m not in (1, n) for m, n in zip(weight.shape, tail, strict=True)):
        raise ValueError(
            f"{name} of shape {tuple(weight.shape)} does not broadcast to the values of f, of shape "
            f"{tuple(value.shape)}: samples first, then the batch"
        )
