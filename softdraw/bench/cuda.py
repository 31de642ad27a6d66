"""Timing on a GPU: events on the stream around each call, with nothing of its operands in the second-level cache."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from softdraw.bench.line import Values, Ways
from softdraw.bench.memory import size
from softdraw.private_torch import gpu_sleep

SIZES = "65536x16,65536x128,16384x1024,8192x4096,2048x16384,1024x131072"  # rows x categories
_WARM = 3  # calls before the first that counts: they compile, and fill the allocator
_LEAD = 2_000_000  # clock cycles, about a millisecond: longer than the host takes to queue any of the calls


def times(calls: Ways, rounds: int) -> dict[str, list[float]]:
    """Seconds on the GPU of every call in every round; which call is first turns from round to round."""
    flush = _larger_than_the_cache()
    for call in calls.values():
        for _ in range(_WARM):
            call()
    names, events = list(calls), {name: [] for name in calls}
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            flush.amax()  # read, not written: what is written would have to leave the cache while a call is timed
            gpu_sleep(_LEAD)
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            calls[name]()
            end.record()
            events[name].append((start, end))
            end.synchronize()  # the host's lead is the same for every call
    return {name: [start.elapsed_time(end) * 1e-3 for start, end in pairs] for name, pairs in events.items()}


def _larger_than_the_cache() -> Tensor:
    """A buffer that displaces whatever the second-level cache holds."""
    return torch.zeros(torch.cuda.get_device_properties().L2_cache_size, dtype=torch.int32, device="cuda")


def read(x: Tensor) -> Tensor:
    """One pass over the logits that does as little as can be with them: what an index draw cannot be quicker than."""
    words = x.view(-1)
    return (words.view(torch.int32) if words.numel() * words.element_size() % 4 == 0 else words).amax()


def extra_bytes(call: Callable[[], Values]) -> int:
    """Peak memory of torch's allocator during ``call`` over that before it and the result's own."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    return max(0, torch.cuda.max_memory_allocated() - before - size(result))


def machine() -> dict[str, str]:
    """The device, its driver's CUDA, and which kernels run."""
    from softdraw import kernels

    device = torch.device("cuda")
    return {
        "gpu": torch.cuda.get_device_name(),
        "cuda": str(torch.version.cuda),
        "kernels": kernels.reason(device),
    }
