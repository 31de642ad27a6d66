"""One operation, up to three bodies: ``reference`` (plain torch) is the definition, and a fast body must equal it."""

from __future__ import annotations

from types import ModuleType

import torch

from softdraw.kernels import reference

__all__ = ["body", "reason"]


def body(device: torch.device) -> ModuleType:
    """The module whose ``soft``, ``hard``, ``index`` and ``gumbel`` run on this device: the fastest there is."""
    return reference


def reason(device: torch.device) -> str:
    """Why ``body`` picks what it picks, in one line for ``softdraw info``."""
    return f"plain torch: no compiled body exists for {device.type} yet"
