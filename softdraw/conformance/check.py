"""The report on a sampler, and the function that makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from softdraw.checks import count, integer, prepare_device
from softdraw.conformance.trials import TRIALS, Bench, Sampler


@dataclass(frozen=True)
class Result:
    """What one check found, in one line of plain words."""

    name: str
    passed: bool
    said: str

    def __str__(self) -> str:
        return f"{'passed' if self.passed else 'FAILED'}  {self.name}: {self.said}"


@dataclass(frozen=True)
class Report:
    """What all checks found; ``print(report)`` shows a line for each."""

    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        """Whether every check was passed."""
        return all(result.passed for result in self.results)

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the checks that were not passed."""
        return tuple(result.name for result in self.results if not result.passed)

    def to_dict(self) -> dict[str, Any]:
        """The report as numbers and strings, as JSON has them."""
        return {"passed": self.passed, "results": [asdict(result) for result in self.results]}

    def __str__(self) -> str:
        return "\n".join(map(str, self.results))


def check(
    sampler: Sampler,
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    tail: int = 2**30,
) -> Report:
    r"""Check that a sampler has the law of its logits and keys its noise by (seed, row id) alone.

    .. math:: P(\text{index} = j) = \mathrm{softmax}(\theta)_j, \qquad \text{index} = f(\theta, \text{seed}, \text{row})

    Ten checks: the output, the law (chi-square), its tail, the same call twice, equal ids in one batch, the order of
    the batch, its size, its parts (as ranks hold them), masks (-inf), and independence under other ids and seeds.

    Args:
        sampler: any callable ``sampler(logits, seed, rows) -> index`` of logits ``(B, K)`` in float32, a seed (an int)
            and row ids, int64 ``(B,)``; it returns integers ``(B,)``.
        seed: the first of the seeds that the checks use. A sampler that is right and deterministic gives one report for
            one seed.
        device: where the logits and the ids are; default: the CPU.
        tail: how many noise values the check of the tail may spend, 2^30 by default: 2 to 60 seconds. With these it
            finds noise that ends at 2^-24, as that of 24-bit uniforms does. 0 leaves this check out.

    Returns:
        A report with ``passed``, ``failed`` (names) and ``results``. A statistical check fails at p < 10^-4.

    Raises:
        TypeError: the sampler is not callable. ValueError: ``tail`` is neither 0 nor at least 2^24.

    Example:
        >>> def place(logits, seed, rows):  # noise keyed by the place in the batch
        ...     return softdraw.gumbel_max(logits, seed=seed)
        >>> report = softdraw.conformance.check(place, tail=0)
        >>> report.passed, report.failed
        (False, ('ids', 'order', 'size', 'parts', 'independence'))
        >>> def by_id(logits, seed, rows):
        ...     return softdraw.gumbel_max(logits, seed=seed, rows=rows)
        >>> softdraw.conformance.check(by_id, tail=0).passed
        True
    """
    if not callable(sampler):
        raise TypeError(f"sampler must be a function of (logits, seed, rows), got {type(sampler).__name__}")
    first = integer("seed", seed, "the first seed of the checks")
    spent = count("tail", tail, 0, "how many noise values the check of the tail spends")
    if 0 < spent < 2**24:
        raise ValueError(f"tail must be 0 or at least 2**24 noise values, got {spent}: fewer cannot test the tail")
    bench = Bench(sampler, first, prepare_device(device, "cpu"), spent)
    return Report(tuple(_result(name, trial, bench) for name, trial in TRIALS.items() if spent or name != "tail"))


def _result(name: str, trial: Callable[[Bench], tuple[bool, str]], bench: Bench) -> Result:
    try:
        passed, said = trial(bench)
    except Exception as error:  # any error of the sampler: the other checks continue
        passed, said = False, f"the sampler raised {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return Result(name, passed, said)
