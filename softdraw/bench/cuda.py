"""Timing on a GPU: events on the stream around each call, with the second-level cache emptied before it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SIZES = "65536x16,65536x128,16384x1024,8192x4096,2048x16384,1024x131072"  # rows x categories
_WARM = 3  # calls before the first that counts: they compile, and fill the allocator


def times(calls: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, list[float]]:
    """Seconds on the GPU of every call in every round; which call is first turns from round to round."""
    flush = torch.empty(4 * torch.cuda.get_device_properties().L2_cache_size, dtype=torch.uint8, device="cuda")
    for call in calls.values():
        for _ in range(_WARM):
            call()
    names, events = list(calls), {name: [] for name in calls}
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            flush.zero_()  # also gives the host a lead, so that what is timed is the GPU's work and not the launch
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            calls[name]()
            end.record()
            events[name].append((start, end))
    torch.cuda.synchronize()
    return {name: [start.elapsed_time(end) * 1e-3 for start, end in pairs] for name, pairs in events.items()}


def extra_bytes(call: Callable[[], Tensor]) -> int:
    """Peak memory of torch's allocator during ``call`` over that before it and the result's own."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    return max(0, torch.cuda.max_memory_allocated() - before - result.numel() * result.element_size())


def machine() -> dict[str, str]:
    """The device, its driver's CUDA, and which kernels run."""
    from softdraw import kernels

    device = torch.device("cuda")
    return {
        "gpu": torch.cuda.get_device_name(),
        "cuda": str(torch.version.cuda),
        "kernels": kernels.reason(device),
    }
