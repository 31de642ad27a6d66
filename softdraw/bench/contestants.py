"""What is compared: each operation of this library and the ways to the same result in stock torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from softdraw.bench import cuda
from softdraw.functional import gumbel_max, gumbel_softmax

TAU = 0.7
OPERATIONS = ("soft", "hard", "soft+backward", "hard+backward", "index")


@dataclass(frozen=True)
class Setting:
    """One line of the table."""

    operation: str  # one of OPERATIONS
    rows: int
    cols: int
    dtype: torch.dtype
    threads: int
    device: str = "cpu"

    @property
    def bytes_moved(self) -> int:
        """What the operation must read and write: the table of passes in the README of benchmarks."""
        element = torch.empty((), dtype=self.dtype).element_size()
        dense, a_row = {
            "soft": (2, 0),
            "hard": (2, 0),
            "soft+backward": (5, 0),
            "hard+backward": (5, 0),
            "index": (1, 8),
        }[self.operation]
        return self.rows * (dense * self.cols * element + a_row)


def contestants(setting: Setting) -> dict[str, Callable[[], Tensor]]:
    """Calls by name, ours first; each makes one whole draw (and its gradient). Compiled ones are compiled here."""
    x = torch.randn(setting.rows, setting.cols, generator=torch.Generator().manual_seed(0))
    x = x.to(setting.device, setting.dtype)
    on_gpu = setting.device == "cuda"
    passes = {"clone": x.clone} | ({"softmax": lambda: x.softmax(-1)} if on_gpu else {})
    if setting.operation == "index":
        ways = {"softdraw": lambda: gumbel_max(x), "multinomial": lambda: _multinomial(x), "argmax": lambda: _argmax(x)}
        return ways | ({"read": lambda: cuda.read(x), **passes} if on_gpu else {})
    hard = setting.operation.startswith("hard")

    def ours(x: Tensor) -> Tensor:
        return gumbel_softmax(x, TAU, hard)

    def stock(x: Tensor) -> Tensor:
        return F.gumbel_softmax(x, TAU, hard)

    torch.compiler.reset()
    functions = {"softdraw": ours, "eager": stock, "compiled": torch.compile(stock, dynamic=False)}
    runs = {
        name: _gradient(f, x) if setting.operation.endswith("backward") else _value(f, x)
        for name, f in functions.items()
    }
    for _ in range(2):
        runs["compiled"]()
    return runs | passes


def _value(f: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Tensor]:
    return lambda: f(x)


def _gradient(f: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Tensor]:
    leaf, grad = x.clone().requires_grad_(), torch.randn_like(x)
    return lambda: torch.autograd.grad(f(leaf), leaf, grad)[0]


def _multinomial(x: Tensor) -> Tensor:
    return torch.multinomial(x.softmax(-1), 1)


def _argmax(x: Tensor) -> Tensor:
    return (x - torch.empty_like(x).exponential_().log()).argmax(-1)
