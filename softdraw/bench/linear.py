"""``linear``: a layer, a draw and a codebook in one, beside the unfused way and the matrix products alone.

``rows`` vectors of WIDTH numbers come in, ``cols`` are the categories, and codes are as wide as the vectors. "products"
are the matrix products that ours makes, each whole: forward the logits; for a gradient the logits once more, h of every
code, and those for the vectors and the weight; and for a rule with two passes the logits and h again. "by hand" is
straight-through Gumbel-softmax of stock torch, or for the other rules the straight-through draw as people write it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from softdraw.bench.line import Gradient, Line, Ways
from softdraw.linear import linear_draw
from softdraw.rules.fused import Request, draw_one_hots
from softdraw.rules.pathwise import Pathwise
from softdraw.rules.straight_through import StraightThrough
from softdraw.rules.straight_through_gumbel import StraightThroughGumbel
from softdraw.rules.zgr import ZGR
from softdraw.seeds import seed_for

TAU = 0.5


def width(cols: int) -> int:
    """Of vectors and codes: that of a language model's head, or of a tokeniser."""
    return 512 if cols > 2**16 else 256


def operands(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Vectors, weight, bias and codebook for logits ``x``, whose values are not used: logits of variance 2."""
    (rows, cols), g = x.shape, torch.Generator().manual_seed(2)
    d = width(cols)
    sizes = ((rows, d), (cols, d), (cols,), (cols, d))
    made = [torch.randn(size, generator=g).to(x.device, x.dtype) for size in sizes]
    return made[0] / d**0.5, *made[1:]  # pyright: ignore[reportReturnType]


def _ours(rule: Pathwise) -> Callable[..., Any]:
    return lambda *given: linear_draw(*given, rule=rule).value


def _unfused(rule: Pathwise) -> Callable[..., Tensor]:
    def draw(x: Tensor, weight: Tensor, bias: Tensor, codebook: Tensor) -> Tensor:
        logits = F.linear(x, weight, bias)
        return draw_one_hots(rule, logits, Request(seed_for(logits, None, None))) @ codebook

    return draw


def _by_hand(rule: Pathwise) -> Callable[..., Tensor]:
    def draw(x: Tensor, weight: Tensor, bias: Tensor, codebook: Tensor) -> Tensor:
        logits = F.linear(x, weight, bias)
        if isinstance(rule, StraightThroughGumbel):
            return F.gumbel_softmax(logits, TAU, hard=True) @ codebook
        p = logits.softmax(-1)
        y = torch.zeros_like(p).scatter_(-1, torch.multinomial(p.detach(), 1), 1.0)
        return (y - p.detach() + p) @ codebook

    return draw


def products(rule: Pathwise | None, x: Tensor, weight: Tensor, bias: Tensor, codebook: Tensor) -> Callable[[], Tensor]:
    """The matrix products of a forward pass (``rule`` None), or of both passes of a rule."""
    logits, u = x.new_empty(len(x), len(weight)), torch.ones_like(x)

    def forward() -> Tensor:
        return torch.addmm(bias, x, weight.t(), out=logits)

    def both() -> Tensor:
        for _ in range(2 if isinstance(rule, ZGR) else 3):
            forward()
        for _ in range(1 if isinstance(rule, ZGR) else 2):
            torch.mm(u, codebook.t(), out=logits)
        return torch.cat((logits @ weight, logits.t() @ x))

    return forward if rule is None else both


def _forward(x: Tensor) -> Ways:
    given, rule = operands(x), ZGR()
    calls = {"softdraw": _ours(rule), "unfused": _unfused(rule), "by hand": _by_hand(rule)}
    ways: Ways = {name: lambda f=f: f(*given) for name, f in calls.items()}
    return ways | {"products": products(None, *given)}


def _backward(rule: Pathwise) -> Line:
    def ways(x: Tensor) -> Ways:
        given = operands(x)
        calls = {"softdraw": _ours(rule), "unfused": _unfused(rule), "by hand": _by_hand(rule)}
        made: Ways = {name: Gradient(f, *given) for name, f in calls.items()}
        return made | {"products": products(rule, *given)}

    return Line(ways, dense=3, indices=2)


LINES = {
    "linear_draw": Line(_forward, dense=1, indices=1),
    "linear_draw:ZGR": _backward(ZGR()),
    "linear_draw:StraightThrough": _backward(StraightThrough()),
    "linear_draw:StraightThroughGumbel": _backward(StraightThroughGumbel(TAU)),
}
