"""One operation, up to three bodies: ``reference`` (plain torch) is the definition, and a fast body must equal it.

A body is a module with ``soft``, ``hard``, ``index`` and ``gumbel``, and for a first-order backward pass
``soft_backward`` and ``hard_backward``.
"""

from __future__ import annotations

import functools
from types import ModuleType

import torch

from softdraw.kernels import cpu, reference
from softdraw.kernels.native import isa, library, why_missing

__all__ = ["body", "reason"]


def body(device: torch.device, dtype: torch.dtype = torch.float32) -> ModuleType:
    """The module whose ``soft``, ``hard``, ``index`` and ``gumbel`` run here, on this dtype: the fastest there is."""
    return _body(device.type, dtype)


@functools.cache
def _body(kind: str, dtype: torch.dtype) -> ModuleType:
    return cpu if kind == "cpu" and dtype in cpu.DTYPES and library() is not None else reference


def reason(device: torch.device) -> str:
    """Why ``body`` picks what it picks, in one line for ``softdraw info``."""
    if device.type != "cpu":
        return f"plain torch: no compiled body exists for {device.type} yet"
    return why_missing() if library() is None else f"compiled, for {isa()}"
