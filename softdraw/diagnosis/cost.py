"""What one gradient estimate costs: milliseconds, and bytes kept for the backward pass."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from softdraw.diagnosis.gradients import Problem

_REPEATS = 7


def cost(problem: Problem, rule: Any) -> dict[str, float]:
    """Median milliseconds of a forward and backward pass, f included, and the bytes of the tensors it saves."""
    device = problem.law.theta.device
    generator = torch.Generator(device).manual_seed(0)
    saved: dict[int, int] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        problem.gradients(rule, 1, generator)
    times = []
    for _ in range(_REPEATS):
        _wait(device)
        started = time.perf_counter()
        problem.gradients(rule, 1, generator)
        _wait(device)
        times.append(1e3 * (time.perf_counter() - started))
    return {"milliseconds": statistics.median(times), "bytes": float(sum(saved.values()))}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
