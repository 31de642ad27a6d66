"""How much memory a call takes beyond its result, by the process's peak: torch's allocator cannot see the kernels'."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

_PROCESS = Path("/proc/self")


def extra_bytes(call: Callable[[], Tensor]) -> int | None:
    """Peak resident bytes during ``call`` over those before it and its result's own; None where Linux does not tell."""
    try:
        (_PROCESS / "clear_refs").write_text("5")  # sets the peak back to the present size
    except OSError:
        return None
    before = _peak()
    result = call()
    return max(0, _peak() - before - result.numel() * result.element_size())


def _peak() -> int:
    status = (_PROCESS / "status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
