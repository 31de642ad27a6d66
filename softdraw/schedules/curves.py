"""Schedules: values ``step -> value`` in closed form, as small frozen objects.

A schedule is computed from the step alone. Nothing accumulates, so a resumed run, a skipped step or a changed batch
size does not change it. It can be compared, printed and pickled. Steps count from 0; a negative one is an error.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from softdraw.checks import finite, given, scalar

Schedule = Callable[[int], float]


class _Schedule:
    """What the schedules share: numbers as floats, and a check of the step. Their names are lower-case because a user
    writes them as functions, ``schedules.linear(1.0, 0.5, 10)``, and ``repr`` gives that back."""

    def __post_init__(self) -> None:
        for f in fields(self):  # pyright: ignore[reportArgumentType]
            object.__setattr__(self, f.name, finite(f.name, getattr(self, f.name)))

    def __call__(self, step: int) -> float:
        """The value at ``step``, from 0 on."""
        t = scalar("step", step, "write int(step)")
        if not t >= 0:
            raise ValueError(f"step must be at least 0, got {step}: steps count from 0")
        return self._at(t)

    def _at(self, t: float) -> float:
        raise NotImplementedError


@dataclass(frozen=True)
class constant(_Schedule):  # noqa: N801
    """The same value at every step.

    Example:
        >>> softdraw.schedules.constant(0.5)(1000)
        0.5
    """

    value: float

    def _at(self, t: float) -> float:
        return self.value


@dataclass(frozen=True)
class linear(_Schedule):  # noqa: N801
    r"""A straight line from ``start`` to ``end``, then ``end``.

    .. math:: v(t) = a + (b - a) \min(t / T, 1)

    Example:
        >>> tau = softdraw.schedules.linear(1.0, 0.5, 10)
        >>> [tau(step) for step in (0, 5, 10, 99)]
        [1.0, 0.75, 0.5, 0.5]
        >>> tau
        linear(start=1.0, end=0.5, steps=10)
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _check_steps(self)

    def _at(self, t: float) -> float:
        return self.end if t >= self.steps else self.start + (self.end - self.start) * (t / self.steps)


@dataclass(frozen=True)
class cosine(_Schedule):  # noqa: N801
    r"""Half a cosine from ``start`` to ``end``, flat at both ends, then ``end``.

    .. math:: v(t) = b + (a - b) \tfrac12 (1 + \cos(\pi \min(t / T, 1)))

    Example:
        >>> [round(softdraw.schedules.cosine(1.0, 0.0, 4)(step), 4) for step in range(6)]
        [1.0, 0.8536, 0.5, 0.1464, 0.0, 0.0]

    Source:
        Loshchilov and Hutter (2017), "SGDR: stochastic gradient descent with warm restarts", eq. 5.
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _check_steps(self)

    def _at(self, t: float) -> float:
        if t >= self.steps:
            return self.end
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * t / self.steps)) / 2


@dataclass(frozen=True)
class exponential(_Schedule):  # noqa: N801
    r"""Exponential decay with a floor: the annealing of Jang et al.

    .. math:: v(t) = \max(a\, e^{-r t}, b)

    Args:
        start: the value at step 0, positive.
        end: the floor; the value never goes below it.
        rate: the decay per step, > 0; the floor is reached at step ``log(start / end) / rate``.

    Example:
        >>> [round(softdraw.schedules.exponential(1.0, 0.5, 1e-3)(step), 4) for step in (0, 100, 693, 694)]
        [1.0, 0.9048, 0.5001, 0.5]

    Source:
        Jang, Gu and Poole (2017), "Categorical reparameterization with Gumbel-softmax", section 4.2.
    """

    start: float
    end: float
    rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rate > 0:
            raise ValueError(
                f"rate must be positive, got {self.rate}: it is the decay per step, as in start * exp(-rate * step)"
            )
        if not self.start >= self.end > 0:
            raise ValueError(
                f"start and end must be start >= end > 0, got start={self.start} and end={self.end}: end is the floor"
            )

    def _at(self, t: float) -> float:
        return max(self.start * math.exp(-self.rate * t), self.end)


@dataclass(frozen=True)
class piecewise(_Schedule):  # noqa: N801
    """Steps: each value holds from its step until the next one's.

    Args:
        values: ``{step: value}``; step 0 must be there.

    Example:
        >>> tau = softdraw.schedules.piecewise({0: 1.0, 100: 0.5, 200: 0.1})
        >>> [tau(step) for step in (0, 99, 100, 5000)]
        [1.0, 1.0, 0.5, 0.1]
    """

    values: Mapping[int, float]

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping):
            raise TypeError(f"values must map steps to values, got {given(self.values)}: write {{0: 1.0}}")
        for step in self.values:
            finite("a step of values", step)
        steps = sorted(self.values)
        if not steps or steps[0] != 0:
            raise ValueError(f"values must give the value at step 0 first, got steps {steps}: add {{0: ...}}")
        own = {step: finite(f"the value at step {step}", self.values[step]) for step in steps}
        object.__setattr__(self, "values", own)

    def __hash__(self) -> int:
        return hash(tuple(self.values.items()))

    def _at(self, t: float) -> float:
        starts = list(self.values)
        return self.values[starts[bisect.bisect_right(starts, t) - 1]]


def _check_steps(schedule: Any) -> None:
    """Makes start and end floats and steps an int, or a float where it is not whole."""
    for name in ("start", "end"):
        object.__setattr__(schedule, name, finite(name, getattr(schedule, name)))
    steps = finite("steps", schedule.steps)
    if not steps > 0:
        raise ValueError(f"steps must be positive, got {schedule.steps}: it is the step at which end is reached")
    object.__setattr__(schedule, "steps", int(steps) if steps == int(steps) else steps)
