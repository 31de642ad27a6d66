"""The scheduler: it writes the value of a schedule into modules, and looks like a torch LR scheduler."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from softdraw.checks import count, given, scalar
from softdraw.schedules.attributes import check_write, owners, write
from softdraw.schedules.curves import Schedule


class TauScheduler(LRScheduler):
    """Writes ``schedule(step)`` into an attribute of every module that has it; used like a torch LR scheduler.

    Works for any hyper-parameter: a temperature, the weight of a penalty, a dropout rate, a field of a settings object.
    A buffer is filled in place (compiled graphs and state_dicts see it); a plain number is replaced. It is an
    ``LRScheduler`` for frameworks that ask for one, and changes no learning rate. It pickles together with its target:
    pickle both in one object, and the copy of the scheduler writes into the copy of the target.

    Args:
        target: a module, whose submodules (inside DDP and torch.compile wrappers too) are searched, or any object.
        schedule: ``step -> value``, a number.
        attr: the name of the attribute.
        optimizer: read by frameworks that ask a scheduler for its optimizer, as Lightning does; not used here.

    Raises:
        ValueError: nothing in ``target`` has the attribute, or a buffer cannot hold the value (its dtype would make it
        0 or infinite). TypeError: the attribute is a parameter, hence learned, not scheduled; or it is no number, an
        integer buffer, None as a buffer, or read-only.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), softdraw.nn.GumbelSoftmax(tau=1.0))
        >>> scheduler = softdraw.schedules.TauScheduler(model, softdraw.schedules.linear(1.0, 0.5, 10))
        >>> for _ in range(4): scheduler.step()
        >>> scheduler.get_last_value(), model[1].tau
        (0.8, tensor(0.8000))
        >>> scheduler.step(9)  # go to a step, as after a resume
        >>> scheduler.get_last_value()
        0.55
    """

    optimizer: Optimizer | None  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, target: object, schedule: Schedule, attr: str = "tau", *, optimizer: Any = None) -> None:
        # LRScheduler's own constructor is not called: it wraps optimizer.step, in order to warn about learning rates.
        if not callable(schedule) or isinstance(schedule, type):
            raise TypeError(_schedule_error(schedule))
        if isinstance(target, type):
            raise TypeError(f"target must be an object, got the class {target.__name__}: write {target.__name__}(...)")
        if not isinstance(attr, str):
            raise TypeError(f"attr must be a str, the name of an attribute, got {given(attr)}: write 'tau'")
        if optimizer is not None and not hasattr(optimizer, "param_groups"):
            raise TypeError(f"optimizer must be a torch optimizer or None, got {given(optimizer)}: leave it out")
        self.schedule, self.attr, self.optimizer = schedule, attr, optimizer
        self._owners = owners(target, attr)
        self._write(0)

    def step(self, step: int | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Advance by one step, or to ``step``, and write the schedule's value there."""
        self._write(self.last_step + 1 if step is None else step)

    def get_last_value(self) -> float:
        """The value last written."""
        return self._last_value

    def get_last_lr(self) -> list[Any]:
        """The learning rates of ``optimizer``, which this scheduler does not change."""
        if self.optimizer is None:
            raise ValueError("this TauScheduler has no optimizer, hence no learning rate: use get_last_value()")
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The step and the value; the schedule and the target are not part of it."""
        return {"last_step": self.last_step, "last_value": self._last_value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Go to the saved step and write the value that the schedule has there."""
        if not isinstance(state, Mapping) or "last_step" not in state:
            got = f"keys {list(state)}" if isinstance(state, Mapping) else given(state)
            raise ValueError(f"state must be what TauScheduler.state_dict() gave, with last_step, got {got}")
        self._write(state["last_step"])

    def _write(self, step: Any) -> None:
        """All owners get the value at ``step``, or none does and an error says why."""
        step = count("step", step, 0, "steps are ints and count from 0")
        value = self.schedule(step)
        if type(value) is not float:  # the text about what it is takes longer than the rest of a step
            value = scalar(f"the value of {self.schedule!r} at step {step}", value, "return a float")
        if math.isnan(value):
            raise ValueError(f"schedule must return a number, got nan from {self.schedule!r} at step {step}")
        for owner in self._owners:
            check_write(owner, self.attr, value)
        for owner in self._owners:
            write(owner, self.attr, value)
        self.last_step, self._last_value = step, value


def _schedule_error(schedule: Any) -> str:
    wanted = "schedule must be a function step -> value, got"
    if isinstance(schedule, type):
        return f"{wanted} the class {schedule.__name__}: write {schedule.__name__}(...)"
    return f"{wanted} {given(schedule)}: write schedules.constant({schedule!r})"
