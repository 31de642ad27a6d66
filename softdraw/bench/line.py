"""A line of the table: one call of this library, other ways to the same result, and what any of them must move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

Values = Tensor | tuple[Tensor, ...]


class Gradient:
    """A forward and a backward pass: the gradient of ``f(*leaves, *others)`` for the leaves, of which it has copies.

    What arrives at the result of ``f`` is random and always the same, or 1 where the result is a number.
    """

    def __init__(self, f: Callable[..., Tensor], *leaves: Tensor, others: tuple[Tensor, ...] = ()) -> None:
        self.f, self.leaves = f, tuple(x.detach().clone().requires_grad_() for x in leaves)
        self.inputs = (*self.leaves, *others)
        y = self.forward()
        noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        self.arriving = torch.ones_like(y) if y.dim() == 0 else noise.to(y.device, y.dtype)

    def forward(self) -> Tensor:
        """The forward pass alone."""
        return self.f(*self.inputs)

    def __call__(self) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.f(*self.inputs), self.leaves, self.arriving)


Ways = dict[str, Callable[[], Any]]  # calls by name, ours ("softdraw") first


@dataclass(frozen=True)
class Line:
    """``ways`` makes the calls for logits. The others are counts of what each of them must read and write."""

    ways: Callable[[Tensor], Ways]
    dense: int  # elements for each element of the logits
    a_row: int = 0  # elements a row
    indices: int = 0  # indices (8 bytes) a row
    samples: int = 1  # noise that is drawn for one result: times are then per sample
    peers: dict[str, str] = field(default_factory=dict)  # by the name of the way, what it needs, as pip takes it

    def left_out(self) -> dict[str, str]:
        """The ways that are not measured here, and what is not installed."""
        return {name: package for name, package in self.peers.items() if find_spec(imported(package)) is None}

    def bytes_moved(self, rows: int, cols: int, element: int) -> int:
        """The bytes of it all, where an element takes ``element``."""
        return rows * ((self.dense * cols + self.a_row) * element + 8 * self.indices)


def imported(package: str) -> str:
    """The name that Python imports a package by, from the one that pip takes."""
    return package.partition("==")[0].replace("-", "_")
