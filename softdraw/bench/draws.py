"""``draws``: Gumbel-softmax, soft and hard, forward alone and with backward, and the index of a draw."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from softdraw.bench.line import Gradient, Line, Ways
from softdraw.functional import gumbel_max, gumbel_softmax

TAU = 0.7


def _relaxed(hard: bool, backward: bool) -> Callable[[Tensor], Ways]:
    def ours(x: Tensor) -> Tensor:
        return gumbel_softmax(x, TAU, hard)

    def stock(x: Tensor) -> Tensor:
        return F.gumbel_softmax(x, TAU, hard)

    def ways(x: Tensor) -> Ways:
        torch.compiler.reset()
        functions = {"softdraw": ours, "eager": stock, "compiled": torch.compile(stock, dynamic=False)}
        calls: Ways = {name: Gradient(f, x) if backward else _value(f, x) for name, f in functions.items()}
        for _ in range(2):
            calls["compiled"]()
        return calls

    return ways


def _index(x: Tensor) -> Ways:
    return {"softdraw": lambda: gumbel_max(x), "multinomial": lambda: _multinomial(x), "argmax": lambda: _argmax(x)}


def _value(f: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Tensor]:
    return lambda: f(x)


def _multinomial(x: Tensor) -> Tensor:
    return torch.multinomial(x.softmax(-1), 1)


def _argmax(x: Tensor) -> Tensor:
    return (x - torch.empty_like(x).exponential_().log()).argmax(-1)


LINES = {
    "soft": Line(_relaxed(hard=False, backward=False), dense=2),
    "hard": Line(_relaxed(hard=True, backward=False), dense=2),
    "soft+backward": Line(_relaxed(hard=False, backward=True), dense=5),
    "hard+backward": Line(_relaxed(hard=True, backward=True), dense=5),
    "index": Line(_index, dense=1, indices=1),
}
