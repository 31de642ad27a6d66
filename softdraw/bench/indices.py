"""``indices``: draws of indices beside torch.multinomial and the Gumbel noise that samplers write by hand.

``draw_index`` always says what its law does. So its first line is measured against the draw alone, and the second
against all that it takes the place of.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from softdraw.bench.line import Gradient, Line, Ways
from softdraw.indices import draw_index, gumbel_topk

K = 64  # drawn without replacement


def _multinomial(x: Tensor) -> Tensor:
    return torch.multinomial(x.softmax(-1), 1)


def _float64(x: Tensor) -> Tensor:
    """As samplers of discrete diffusion write it: noise in float64."""
    return (x.double() - (-torch.rand_like(x, dtype=torch.float64).log()).log()).argmax(-1)


def _said(x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    log_p = x.log_softmax(-1)
    return log_p.gather(-1, index).squeeze(-1), -(log_p.exp() * log_p).sum(-1)


def _with_law(x: Tensor) -> tuple[Tensor, ...]:
    index = _multinomial(x)
    return index.squeeze(-1), *_said(x, index)


def _with_law_in_float64(x: Tensor) -> tuple[Tensor, ...]:
    index = _float64(x)
    return index, *_said(x, index.unsqueeze(-1))


def _ours_learned(x: Tensor) -> Tensor:
    _, log_prob, entropy = draw_index(x)
    return log_prob + entropy


def _learned(x: Tensor) -> Tensor:
    _, log_prob, entropy = _with_law(x)
    return log_prob + entropy


def _without_replacement(x: Tensor) -> Tensor:
    return torch.multinomial(x.softmax(-1), min(K, x.shape[-1]))


def _line(ours: Callable, peers: dict[str, Callable], a_row: int, indices: int) -> Line:
    def ways(x: Tensor) -> Ways:
        return {name: lambda f=f: f(x) for name, f in {"softdraw": ours, **peers}.items()}

    return Line(ways, dense=1, a_row=a_row, indices=indices)


def _gradient(x: Tensor) -> Ways:
    return {"softdraw": Gradient(_ours_learned, x), "multinomial": Gradient(_learned, x)}


LINES = {
    "draw_index": _line(lambda x: draw_index(x).index, {"multinomial": _multinomial, "float64": _float64}, 0, 1),
    "draw_index+law": _line(
        lambda x: tuple(draw_index(x)), {"multinomial": _with_law, "float64": _with_law_in_float64}, 2, 1
    ),
    "draw_index+backward": Line(_gradient, dense=3, indices=2),
    "gumbel_topk": _line(lambda x: gumbel_topk(x, min(K, x.shape[-1])), {"multinomial": _without_replacement}, 0, K),
}
