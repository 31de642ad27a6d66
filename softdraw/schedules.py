"""Schedules: plain functions ``step -> value``, in closed form, and what writes their value into modules.

A schedule is computed from the step alone. Nothing compounds, so a resumed run, a skipped step or a changed batch size
cannot bend it.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Schedule", "TauScheduler", "constant", "cosine", "exponential", "linear", "piecewise"]

Schedule = Callable[[int], float]


def constant(value: float) -> Schedule:
    """The same value at every step.

    Example:
        >>> softdraw.schedules.constant(0.5)(1000)
        0.5
    """
    return lambda step: value


def linear(start: float, end: float, steps: int) -> Schedule:
    r"""A straight line from ``start`` to ``end``, then ``end``.

    .. math:: v(t) = a + (b - a) \min(t / T, 1)

    Example:
        >>> [softdraw.schedules.linear(1.0, 0.5, 10)(step) for step in (0, 5, 10, 99)]
        [1.0, 0.75, 0.5, 0.5]
    """
    _check_steps(steps)
    return lambda step: end if step >= steps else start + (end - start) * (step / steps)


def cosine(start: float, end: float, steps: int) -> Schedule:
    r"""Half a cosine from ``start`` to ``end``, flat at both ends, then ``end``.

    .. math:: v(t) = b + (a - b) \tfrac12 (1 + \cos(\pi \min(t / T, 1)))

    Example:
        >>> [round(softdraw.schedules.cosine(1.0, 0.0, 4)(step), 4) for step in range(6)]
        [1.0, 0.8536, 0.5, 0.1464, 0.0, 0.0]

    Source:
        Loshchilov and Hutter (2017), "SGDR: stochastic gradient descent with warm restarts", eq. 5.
    """
    _check_steps(steps)
    return lambda step: end if step >= steps else end + (start - end) * (1 + math.cos(math.pi * step / steps)) / 2


def exponential(start: float, end: float, rate: float) -> Schedule:
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
    if not rate > 0:
        raise ValueError(
            f"rate must be positive, got {rate}: it is the decay per step, as in start * exp(-rate * step)"
        )
    if not start >= end > 0:
        raise ValueError(f"start and end must be start >= end > 0, got start={start} and end={end}: end is the floor")
    return lambda step: max(start * math.exp(-rate * step), end)


def piecewise(values: Mapping[int, float]) -> Schedule:
    """Steps: each value holds from its step until the next one's.

    Args:
        values: ``{step: value}``; step 0 must be there.

    Example:
        >>> tau = softdraw.schedules.piecewise({0: 1.0, 100: 0.5, 200: 0.1})
        >>> [tau(step) for step in (0, 99, 100, 5000)]
        [1.0, 1.0, 0.5, 0.1]
    """
    starts = sorted(values)
    if not starts or starts[0] != 0:
        raise ValueError(f"values must give the value at step 0, got steps {starts}: add {{0: ...}}")
    return lambda step: values[starts[max(bisect.bisect_right(starts, step) - 1, 0)]]


def _check_steps(steps: int) -> None:
    if not steps > 0:
        raise ValueError(f"steps must be positive, got {steps}: it is the step at which end is reached")


class TauScheduler:
    """Writes ``schedule(step)`` into an attribute of every module that has it; shaped like a torch LR scheduler.

    Works for any hyper-parameter: a temperature, the weight of a penalty, a dropout rate, a field of a settings object.
    A buffer is filled in place (compiled graphs and state_dicts see it); a plain number is replaced.

    Args:
        target: a module, whose submodules (inside DDP and torch.compile wrappers too) are searched, or any object.
        schedule: ``step -> value``.
        attr: the name of the attribute.

    Raises:
        ValueError: nothing in ``target`` has the attribute. TypeError: it is a parameter, hence learned, not scheduled.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), softdraw.nn.GumbelSoftmax(tau=1.0))
        >>> scheduler = softdraw.schedules.TauScheduler(model, softdraw.schedules.linear(1.0, 0.5, 10))
        >>> for _ in range(4): scheduler.step()
        >>> scheduler.get_last_value(), model[1].tau
        (0.8, tensor(0.8000))
    """

    def __init__(self, target: object, schedule: Schedule, attr: str = "tau") -> None:
        if not callable(schedule):
            raise TypeError(
                f"schedule must be a function step -> value, got {schedule!r}: write schedules.constant({schedule!r})"
            )
        modules = target.modules() if isinstance(target, nn.Module) else [target]
        self._owners = [m for m in modules if _holds(m, attr)]
        if not self._owners:
            raise ValueError(f"target has no module with an attribute {attr!r}: name the one to schedule with attr=...")
        if any(isinstance(getattr(owner, attr), nn.Parameter) for owner in self._owners):
            raise TypeError(
                f"attr {attr!r} is a parameter of the target: it is learned, and a schedule would undo that"
            )
        self.schedule, self.attr, self.last_step = schedule, attr, 0
        self._write()

    def step(self) -> None:
        """Go on by one step and write its value."""
        self.last_step += 1
        self._write()

    def get_last_value(self) -> float:
        """The value last written."""
        return self._last_value

    def state_dict(self) -> dict[str, Any]:
        """The step and the value; the schedule, being code, is not part of it."""
        return {"last_step": self.last_step, "last_value": self._last_value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to the saved step and write the value that the schedule has there."""
        self.last_step = int(state["last_step"])
        self._write()

    def _write(self) -> None:
        self._last_value = float(self.schedule(self.last_step))
        for owner in self._owners:
            held = getattr(owner, self.attr)
            if isinstance(held, Tensor):
                with torch.no_grad():
                    held.fill_(self._last_value)
            else:
                setattr(owner, self.attr, self._last_value)


def _holds(x: object, attr: str) -> bool:
    """Whether ``x`` itself has the attribute: a module that only forwards its content's has no value to write."""
    if not isinstance(x, nn.Module):
        return hasattr(x, attr)
    return attr in {*vars(x), *x._buffers, *x._parameters} or hasattr(type(x), attr)
