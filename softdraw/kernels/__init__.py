"""One operation, up to three bodies: ``reference`` (plain torch) is the definition, and a fast body must equal it.

A body is a module with ``soft``, ``hard``, ``index``, ``best`` and ``gumbel``, and for a first-order backward pass
``soft_backward`` and ``hard_backward``. A fast one is compared with the reference before its first use with a dtype
(``check``). Where there is none, or it is wrong, plain torch draws, and one warning says why.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from softdraw.errors import warn
from softdraw.kernels import cpu, reference
from softdraw.kernels.check import disagreement
from softdraw.kernels.native import advice, isa, library, why_missing

__all__ = ["body", "body_for", "reason"]

_PLACES = {"cpu": "the CPU", "cuda": "the GPU"}  # where there is a fast body

_picked: dict[tuple[torch.device, torch.dtype], ModuleType] = {}  # final: the body of a draw does not change later
_on_cpu: dict[torch.dtype, ModuleType] = {}
_agreed: set[tuple[str, torch.dtype]] = set()  # kinds of device whose fast body equals the reference in this dtype
_refused: dict[str, tuple[str]] = {}  # why a kind's fast body is not used; after one failure no other dtype is checked


def body(device: torch.device, dtype: torch.dtype = torch.float32) -> ModuleType:
    """The module whose ``soft``, ``hard``, ``index`` and ``gumbel`` run here, on this dtype: the fastest there is."""
    return _picked.get((device, dtype)) or _pick(device, dtype)


def body_for(x: Tensor) -> ModuleType:
    """``body`` for the device and dtype of ``x``. On the CPU it is looked up by dtype alone, which hashes faster than a
    pair: a small draw takes microseconds in all."""
    return (x.is_cpu and _on_cpu.get(x.dtype)) or body(x.device, x.dtype)


def _pick(device: torch.device, dtype: torch.dtype) -> ModuleType:
    """The body, stored for later calls unless a capture forbids to check the fast one."""
    kind, found = device.type, reference
    if kind in _PLACES and dtype in cpu.DTYPES:
        if kind == "cuda" and _too_late_to_ask(dtype):
            return reference
        found = _trusted(kind, dtype) or reference
    if found is cpu:
        _on_cpu[dtype] = cpu
    _picked[device, dtype] = found
    return found


def _trusted(kind: str, dtype: torch.dtype) -> ModuleType | None:
    """The fast body for a kind of device, if there is one and it equals the reference in this dtype."""
    if kind in _refused:
        return None
    fast, why = _compiled() if kind == "cpu" else _triton()
    if fast is not None and (kind, dtype) not in _agreed:
        why = _wrong(fast, kind, dtype)
    if not why:
        _agreed.add((kind, dtype))
        return fast
    mine = (why,)
    if _refused.setdefault(kind, mine) is mine:  # if several threads check at once, one warns
        warn(f"softdraw draws with plain torch on {_PLACES[kind]}: {why}")
    return None


def _wrong(fast: ModuleType, kind: str, dtype: torch.dtype) -> str:
    """Why a fast body is not used with this dtype; empty if it is right."""
    name = "compiled" if kind == "cpu" else "Triton"
    try:
        wrong = disagreement(fast, torch.device(kind), dtype)
    except Exception as failure:  # any error of a driver, a compiler or an old GPU: draws fall back to plain torch
        return f"the {name} kernels do not run here: {_said(failure)}"
    if not wrong:
        return ""
    return f"the {name} kernels are not used: {wrong}" + (f". {advice()}" if kind == "cpu" else "")


def _compiled() -> tuple[ModuleType | None, str]:
    """The compiled CPU kernels, or why there are none."""
    return (None, why_missing()) if library() is None else (cpu, "")


def _triton() -> tuple[ModuleType | None, str]:
    """The Triton kernels, or why there are none."""
    try:
        from softdraw.kernels import triton
    except Exception as failure:
        if isinstance(failure, ModuleNotFoundError) and str(failure.name).split(".")[0] == "triton":
            return None, "Triton is not installed: pip install 'softdraw[triton]'"
        return None, f"the Triton kernels do not run here: {_said(failure)}"
    return triton, ""


def _said(failure: Exception) -> str:
    return (" ".join(str(failure).split()) or type(failure).__name__)[:200]


def _too_late_to_ask(dtype: torch.dtype) -> bool:
    """Whether a CUDA graph is being captured before the Triton kernels were checked with this dtype. The check waits
    for the device, which a capture does not allow. So the graph gets plain torch, and the next draw outside it checks
    again."""
    known = "cuda" in _refused or ("cuda", dtype) in _agreed or not torch.cuda.is_available()
    if known or not torch.cuda.is_current_stream_capturing():
        return False
    warn(
        f"the first draw in {dtype} on this GPU is captured in a CUDA graph, where the Triton kernels cannot be "
        "checked: the graph will draw with plain torch, which is slower. Make one draw before the capture"
    )
    return True


def reason(device: torch.device) -> str:
    """Why ``body`` picks what it picks, in one line for ``softdraw info``."""
    if device.type not in _PLACES:
        return f"plain torch: no compiled body exists for {device.type} yet"
    picked, why = body(device), _refused.get(device.type, ("",))[0]
    if picked is reference:
        return f"plain torch: {why}"
    runs = f"compiled, for {isa()}" if picked is cpu else "Triton"
    return f"{runs}; not with every dtype: {why}" if why else runs
