"""What one gradient estimate costs: milliseconds, and bytes kept for the backward pass."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from softdraw.diagnosis.gradients import Problem

_ROUNDS = 7


def costs(problem: Problem, rules: Sequence[Any], deadline: float) -> list[dict[str, float]]:
    """For each rule, the median milliseconds of a forward and backward pass, f included, and the bytes it saves.

    The rules are timed in turn, round by round, so that a slow period of the machine affects all of them. The first
    round does not count, because the first calls include loading and compilation. A slow f gets fewer rounds.
    """
    saved = [_saved(problem, rule) for rule in rules]
    rounds: list[list[float]] = []
    while len(rounds) <= _ROUNDS and (not rounds or time.monotonic() < deadline):
        rounds.append([_milliseconds(problem, rule) for rule in rules])
    counted = rounds[1:] or rounds
    medians = [statistics.median(times) for times in zip(*counted, strict=True)]
    return [{"milliseconds": ms, "bytes": float(held)} for ms, held in zip(medians, saved, strict=True)]


def _saved(problem: Problem, rule: Any) -> int:
    storages: dict[int, int] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        problem.gradients(rule, 1, _generator(problem))
    return sum(storages.values())


def _milliseconds(problem: Problem, rule: Any) -> float:
    device, generator = problem.law.theta.device, _generator(problem)
    _wait(device)
    started = time.perf_counter()
    problem.gradients(rule, 1, generator)
    _wait(device)
    return 1e3 * (time.perf_counter() - started)


def _generator(problem: Problem) -> torch.Generator:
    return torch.Generator(problem.law.theta.device).manual_seed(0)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
