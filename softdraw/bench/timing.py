"""How contestants are timed: alternating in one process, medians over many rounds, ratios within a round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from softdraw.bench import cuda
from softdraw.bench.contestants import Setting, contestants
from softdraw.bench.line import Ways
from softdraw.bench.memory import extra_bytes, kept_bytes

Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "processor": time.process_time}
_ROUND = 2e-2  # seconds that a contestant runs for in a round, at least: long beside what the last one left in caches


@dataclass(frozen=True)
class Result:
    """One setting measured, by contestant. Seconds are medians; a ratio is the median of the ratios of a peer's time
    to ours."""

    setting: Setting
    seconds: dict[str, float]
    ratios: dict[str, float]
    extra_bytes: dict[str, int | None]  # peak memory beyond the result
    kept_bytes: dict[str, int | None]  # memory kept for the backward pass, where there is one

    @property
    def bandwidth(self) -> float:
        """Bytes that had to be moved, a second."""
        return self.setting.bytes_moved / self.seconds["softdraw"]

    def as_dict(self) -> dict[str, Any]:
        """What goes into the JSON file."""
        s = self.setting
        where = {"device": s.device, "operation": s.operation, "rows": s.rows, "cols": s.cols, "threads": s.threads}
        figures = {"seconds": self.seconds, "ratios": self.ratios, "bandwidth": self.bandwidth, "samples": s.samples}
        memory = {"extra_bytes": self.extra_bytes, "kept_bytes": self.kept_bytes}
        return {**where, "dtype": str(s.dtype).removeprefix("torch."), **figures, **memory}


def measure(setting: Setting, rounds: int, clock: str = "wall") -> Result:
    """Time one setting by one of ``CLOCKS``; torch's number of threads is put back afterwards. A GPU has its own clock.

    Time of the processor is that of all threads together, and does not count what other programs take.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(setting.threads)
    try:
        calls = contestants(setting)
        on_gpu = setting.device == "cuda"
        times = cuda.times(calls, rounds) if on_gpu else cpu_times(calls, rounds, CLOCKS[clock])
        extra = {name: (cuda.extra_bytes if on_gpu else extra_bytes)(call) for name, call in calls.items()}
        kept = {name: kept_bytes(call) for name, call in calls.items()}
    finally:
        torch.set_num_threads(before)
    ours = times["softdraw"]
    ratios = {
        name: statistics.median(theirs / mine for theirs, mine in zip(times[name], ours, strict=True))
        for name in times
        if name != "softdraw"
    }
    return Result(setting, {name: statistics.median(t) for name, t in times.items()}, ratios, extra, kept)


def cpu_times(calls: Ways, rounds: int, clock: Clock = time.perf_counter) -> dict[str, list[float]]:
    """Seconds a call, by contestant, of every round."""
    loops = {name: _loops(call, clock) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:  # each is first, and after each, as often
            times[name].append(_time(calls[name], loops[name], clock))
    return times


def _loops(call: Callable[[], Any], clock: Clock) -> int:
    call()
    shortest = min(
        _time(call, 1, clock) for _ in range(3)
    )  # on a busy machine a single call may wait for the processor
    return max(1, int(_ROUND / shortest))


def _time(call: Callable[[], Any], loops: int, clock: Clock) -> float:
    start = clock()
    for _ in range(loops):
        call()
    return (clock() - start) / loops
