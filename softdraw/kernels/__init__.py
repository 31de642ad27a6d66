"""One operation, up to three bodies: ``reference`` (plain torch) is the definition, and a fast body must equal it.

A body is a module with ``soft``, ``hard``, ``index`` and ``gumbel``, and for a first-order backward pass
``soft_backward`` and ``hard_backward``.
"""

from __future__ import annotations

import functools
import warnings
from types import ModuleType

import torch
from torch import Tensor

from softdraw.kernels import cpu, reference
from softdraw.kernels.native import isa, library, why_missing

__all__ = ["body", "body_for", "reason"]


_picked: dict[tuple[torch.device, torch.dtype], ModuleType] = {}
_on_cpu: dict[torch.dtype, ModuleType] = {}


def body(device: torch.device, dtype: torch.dtype = torch.float32) -> ModuleType:
    """The module whose ``soft``, ``hard``, ``index`` and ``gumbel`` run here, on this dtype: the fastest there is."""
    return _picked.get((device, dtype)) or _pick(device, dtype)


def body_for(x: Tensor) -> ModuleType:
    """``body`` for the device and dtype of ``x``, with less to hash: a small draw takes microseconds."""
    return (x.is_cpu and _on_cpu.get(x.dtype)) or body(x.device, x.dtype)


def _pick(device: torch.device, dtype: torch.dtype) -> ModuleType:
    """The body, kept for the next call unless it is a makeshift."""
    kind, found = device.type, reference
    if kind == "cuda" and dtype in cpu.DTYPES:
        if _too_late_to_ask():
            return reference
        found = _triton()[0] or reference
    elif kind == "cpu" and dtype in cpu.DTYPES and library() is not None:
        found = _on_cpu[dtype] = cpu
    _picked[device, dtype] = found
    return found


def _too_late_to_ask() -> bool:
    """Whether a CUDA graph is being captured before it is known if the Triton kernels are right on this GPU: to compare
    them waits for the device, which a capture does not allow. Plain torch draws the same, and nothing is settled."""
    known = _triton.cache_info().currsize or not torch.cuda.is_available()
    if known or not torch.cuda.is_current_stream_capturing():
        return False
    warnings.warn(
        "the first draw on this GPU is captured in a CUDA graph, where the Triton kernels cannot be checked: the graph "
        "will draw with plain torch, which is slower. Make one draw before the capture",
        RuntimeWarning,
        stacklevel=2,
    )
    return True


@functools.cache
def _triton() -> tuple[ModuleType | None, str]:
    """The Triton kernels, once they have agreed with plain torch on this GPU; or why they are not used."""
    try:
        from softdraw.kernels import triton
        from softdraw.kernels.triton.check import disagreement

        wrong = disagreement(torch.device("cuda"))
        if wrong:
            return None, f"the Triton kernels are not used: {wrong}"
    except Exception as failure:  # whatever a driver, a compiler or an old GPU has to say: draws go on without
        if isinstance(failure, ModuleNotFoundError) and str(failure.name).split(".")[0] == "triton":
            return None, "Triton is not installed: pip install 'softdraw[triton]'"
        said = " ".join(str(failure).split()) or type(failure).__name__
        return None, f"the Triton kernels do not run here: {said[:200]}"
    return triton, "Triton"


def reason(device: torch.device) -> str:
    """Why ``body`` picks what it picks, in one line for ``softdraw info``."""
    if device.type == "cuda":
        return _triton()[1] if _triton()[0] else f"plain torch: {_triton()[1]}"
    if device.type != "cpu":
        return f"plain torch: no compiled body exists for {device.type} yet"
    return why_missing() if library() is None else f"compiled, for {isa()}"
