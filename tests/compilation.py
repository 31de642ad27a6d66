"""How many graphs torch.compile makes of a function, counted as its real backends do, with AOTAutograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo.utils import counters

BACKENDS = ["aot_eager", "inductor"]


def fresh(function: Any, backend: str) -> Any:
    """``function`` compiled in one graph, with nothing compiled before it and the count at zero."""
    torch._dynamo.reset()
    counters.clear()
    return torch.compile(function, backend=backend, fullgraph=True)


def graphs() -> int:
    """The graphs made since ``fresh``."""
    return counters["stats"]["unique_graphs"]


def gradient(draw: Callable, x: torch.Tensor, *rest: Any, **named: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A draw from a new leaf ``x``, and the gradient that a weighted sum of it leaves there, if it has one."""
    leaf = x.clone().requires_grad_()
    y = draw(leaf, *rest, **named)
    if y.requires_grad:
        (y * torch.linspace(-1, 1, y.shape[-1], dtype=y.dtype)).sum().backward()
    return y.detach(), leaf.grad
