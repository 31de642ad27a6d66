"""What the callbacks of Lightning and transformers share: schedules at a step, and numbers to log."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from softdraw.checks import check_bool, given
from softdraw.metrics import CodeUsage
from softdraw.nn import Choice, GumbelSoftmax
from softdraw.nn.tau import WithTau
from softdraw.rules.fused import index_of
from softdraw.schedules import Schedule, TauScheduler


class Watch:
    """Writes schedules into a model at a step, and counts which codes its modules choose in training."""

    def __init__(self, schedules: Schedule | Mapping[str, Schedule] | None, usage: bool) -> None:
        check_bool("usage", usage)
        if schedules is not None and not isinstance(schedules, Mapping) and not callable(schedules):
            raise TypeError(
                f"schedules must be a schedule of tau, a mapping from attributes to schedules, or None, got "
                f"{given(schedules)}: write softdraw.schedules.exponential(1.0, 0.5, rate=1e-4)"
            )
        if schedules is None:
            schedules = {}
        self.schedules = schedules if isinstance(schedules, Mapping) else {"tau": schedules}
        self.usage = usage
        self._schedulers: dict[str, TauScheduler] = {}
        self._values: dict[str, float] = {}  # of the last step, which schedules have left behind when it is logged
        self._taus: dict[str, WithTau] = {}
        self._used: dict[str, CodeUsage] = {}
        self._hooks: list[Any] = []
        self._device = torch.device("cpu")  # of the model: a backend may sum nothing elsewhere

    def start(self, model: nn.Module, step: int) -> None:
        """Look for the modules of a model, and write the values of the schedules at ``step``."""
        self.stop()
        self._schedulers = {attr: TauScheduler(model, schedule, attr) for attr, schedule in self.schedules.items()}
        self.seek(step)
        self._values = self._now()
        self._device = next((t.device for t in model.parameters()), self._device)
        for path, module in model.named_modules():
            if isinstance(module, WithTau) and module.has_tau and "tau" not in self.schedules:
                self._taus[path] = module
            if self.usage:
                self._hooks.append(module.register_forward_hook(partial(self._count, path)))

    def stop(self) -> None:
        """Leave the model."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._taus, self._used = [], {}, {}

    def seek(self, step: int) -> None:
        """Write the values at ``step``. A schedule is a function of the step, so that a resumed run needs no other
        state."""
        self._values = self._now()
        for scheduler in self._schedulers.values():
            scheduler.step(step)

    def numbers(self) -> dict[str, float]:
        """What to log: the scheduled values that the last step had, the tau of every module where it has no schedule,
        and how codes were used since the last call. All ranks must call it, since usage is summed over them."""
        found = self._values | {_named(path, "tau"): float(module.tau) for path, module in self._taus.items()}
        for path, usage in self._used_anywhere():
            numbers = usage.compute()
            found[_named(path, "perplexity")] = numbers["perplexity_hard"]
            found[_named(path, "active_codes")] = float(numbers["active_codes"])
            usage.reset()
        return found

    def _used_anywhere(self) -> list[tuple[str, CodeUsage]]:
        """The counts of every module that any rank ran, in one order on all ranks, since each takes part in every sum;
        zeros for one that this rank did not run."""
        if dist.is_available() and dist.is_initialized():
            shapes: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(shapes, {path: (u.num_codes, u.groups) for path, u in self._used.items()})
            for path, shape in (item for of_rank in shapes for item in of_rank.items()):
                if path not in self._used:
                    self._used[path] = usage = CodeUsage(*shape)
                    usage.soft, usage.hard = usage.soft.to(self._device), usage.hard.to(self._device)
        return sorted(self._used.items())

    def _now(self) -> dict[str, float]:
        return {attr: scheduler.get_last_value() for attr, scheduler in self._schedulers.items()}

    @torch.no_grad()
    def _count(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """Add a forward pass. One that activation checkpointing repeats counts twice with all its rows, which changes
        neither shares nor which codes are active."""
        if not module.training or torch.compiler.is_compiling():
            return
        codes = codes_of(module, output)
        if codes is None:
            return
        index, groups, number = codes
        if path not in self._used:
            self._used[path] = CodeUsage(number, groups)
        self._used[path].update(index)


def codes_of(module: nn.Module, output: Any) -> tuple[Tensor, int, int] | None:
    """The indices that a module chose, the number of its codebooks and that of their codes; None if it chooses none."""
    if isinstance(module, GumbelSoftmax) and isinstance(output, Tensor):
        y = output.movedim(module.dim, -1)
        return index_of(y), 1, y.shape[-1]
    if not isinstance(output, Choice) or output.index.dtype == torch.bool:
        return None
    # Groups have codebooks of their own, (..., G, K) for an index (..., G). A router's k experts are of one list.
    grouped = output.theta.dim() > output.index.dim()
    return output.index, output.theta.shape[-2] if grouped else 1, output.theta.shape[-1]


def _named(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name
