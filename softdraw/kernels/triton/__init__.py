"""The operations on a GPU, fused in Triton: noise is made where it is used, and a row is read once and written once.

This file turns arguments into what the kernels take and picks tiles: several narrow rows to a program, a row of
up to 2^14 columns in one program's registers, and wider rows in splits that another kernel brings together.
Everything is queued on the device's current stream, memory comes from torch's allocator, and no value is read back:
draws can be captured in a CUDA graph. Results are those of ``reference``, to a few units in the last place.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 3):
    raise ImportError(f"Triton {triton.__version__} is too old: 3.3 or newer, which torch 2.7 or newer brings along")

from softdraw.arguments import Draw, Fields, KernelRule, Tau, compute_dtype
from softdraw.kernels import reference
from softdraw.kernels.triton import bit_passes, draws, gradients, indices, launching, layout, philox, rao, rules
from softdraw.kernels.triton import bits as triton_bits
from softdraw.kernels.triton import passes as passes
from softdraw.kernels.triton import usage as usage
from softdraw.kernels.triton.indices import best as best
from softdraw.kernels.triton.indices import drawn as drawn
from softdraw.kernels.triton.indices import index as index
from softdraw.kernels.triton.indices import tempered as tempered
from softdraw.kernels.triton.indices import topk as topk
from softdraw.kernels.triton.launching import TYPES, contiguous, operands, tau_of
from softdraw.kernels.triton.layout import Tile, each, flat, layout_of, noise_tile, tile

over_bits = bit_passes
subsets = tiles = None  # they run in plain torch on a GPU


def soft(draw: Fields) -> Tensor:
    """The relaxed draw: rows of the simplex, in the dtype and layout of the logits."""
    return _dense("soft", Draw(*draw))


def hard(draw: Fields) -> Tensor:
    """The exact draw as a one-hot, in the dtype and layout of the logits; tau is checked but does not change the
    draw."""
    draw = Draw(*draw)
    if isinstance(draw.tau, Tensor):
        reference.checked(draw.tau, compute_dtype(draw.logits.dtype))
    return _dense("hard", draw._replace(tau=1.0))


def hard_backward(draw: Fields, grad: Tensor) -> Tensor:
    """The straight-through gradient for the logits: that of the soft draw with the same noise, made again here."""
    return _dense("hard_backward", Draw(*draw), grad)


def hard_index(draw: Fields, samples: int | None) -> tuple[Tensor, Tensor]:
    """The exact draw as a one-hot and as an index, ``(samples, *batch, C)`` and ``(samples, *batch)``."""
    return reference.hard_index(draw, samples, index)


def bits(draw: Fields, samples: int | None) -> Tensor:
    """Bits, 1 with probability sigmoid(theta), ``(samples, *batch)`` or ``batch``."""
    return triton_bits.draw(Draw(*draw), samples)


def soft_bits(draw: Fields, stretch: float) -> Tensor:
    """Relaxed bits, stretched and clipped, of the shape of theta."""
    return reference.soft_bits(draw, stretch, soft)


def rule_backward(draw: Fields, grad: Tensor, at: Tensor, rule: KernelRule, given: bool) -> Tensor:
    """The gradient of a rule for the logits, of the shape of ``grad``."""
    if not rule.noisy:
        return rules.closed(Draw(*draw), grad, at, rule)
    if rule.name == "gumbel_rao" and rule.draws == 1 and not given and grad.dim() == draw[0].dim():
        return hard_backward(draw, grad)
    return rao.rao(Draw(*draw), grad, at, rule, given)


def bits_backward(draw: Fields, grad: Tensor, sample: Tensor, rule: KernelRule, given: bool) -> Tensor:
    """The gradient of a rule for theta, of the shape of ``grad``."""
    return triton_bits.backward(Draw(*draw), grad, sample, rule, given)


def soft_backward(y: Tensor, grad: Tensor, tau: Tau) -> Tensor:
    """The gradient for the logits of a soft draw ``y``."""
    grad, out = grad.resolve_neg(), torch.empty_like(y)
    if not out.numel():
        return out
    form = layout_of({"out": out, "in": y, "grad": grad}, None)
    if form is None:
        return out.copy_(soft_backward(y.contiguous(), grad.contiguous(), tau))
    n, dtype = y.shape[:-1].numel(), compute_dtype(y.dtype)
    cut = tile(n, y.shape[-1], y.dtype)
    named = form | tau_of(tau, y) | {"out": out, "y": y, "grad": grad, "dots": None, "T": TYPES[dtype]}
    named |= {"rows": n, "cols": y.shape[-1]}
    if cut.splits > 1:
        parts = torch.empty((n, cut.splits), dtype=dtype, device=y.device)
        launching.launch(gradients.jacobian, cut, named | {"OP": "part", "dots": parts})
        named["dots"] = parts.sum(-1)
    launching.launch(gradients.jacobian, cut, named | {"OP": "whole"})
    return out


def gumbel(seed: Tensor, rows: Tensor, cols: int, col_start: int, stream: Tensor, dtype: torch.dtype) -> Tensor:
    """Standard Gumbel noise of shape ``(..., cols)``."""
    batch = torch.broadcast_tensors(seed, rows)[0].shape[:-1]  # broadcast_shapes would import sympy: 0.3 s
    out = torch.empty((*batch, cols), dtype=dtype, device=rows.device)
    if out.numel():
        cut = noise_tile(batch.numel(), cols + col_start % 4)
        (seeds, each_seed), (streams, each_stream) = each(seed, batch), each(stream, batch)
        named = {"out": out, "seeds": seeds, "ids": flat(rows, batch), "streams": streams, "rows": batch.numel()}
        named |= {"cols": cols, "col_start": col_start, "EACH_SEED": each_seed, "EACH_STREAM": each_stream}
        launching.launch(philox.noise, cut, named | {"T": TYPES[dtype]})
    return out


def _dense(op: str, draw: Draw, grad: Tensor | None = None) -> Tensor:
    """An operation whose result has the shape and layout of the logits."""
    if draw.col_start % 4:  # between two counters, whose words a thread takes whole
        return getattr(reference, op)(draw, *(() if grad is None else (grad,)))
    logits, grad = draw.logits.resolve_neg(), None if grad is None else grad.resolve_neg()
    draw = draw._replace(logits=logits)
    out = torch.empty_like(logits)
    if not out.numel():
        return out
    form = layout_of({"out": out, "in": logits} | ({} if grad is None else {"grad": grad}), draw.mask)
    if form is None:  # rare: a permuted batch of three dimensions or more
        return out.copy_(_dense(op, contiguous(draw), None if grad is None else grad.contiguous()))
    named = form | operands(draw) | tau_of(draw.tau, logits)
    named |= {"out": out, "grad": grad, "OP": op}
    cut = tile(named["rows"], named["cols"], logits.dtype)
    if cut.splits == 1:
        launching.launch(draws.whole, cut, named)
    elif op == "hard":
        tops = torch.empty(named["rows"], dtype=compute_dtype(logits.dtype), device=logits.device)
        ats = torch.empty(named["rows"], dtype=torch.int64, device=logits.device)
        indices.highest(named, logits, ats, tops)
        launching.launch(draws.one_hot, cut, named | {"tops": tops, "ats": ats})
    else:
        launching.launch(draws.write, cut, named | _combined(named, cut, logits))
    return out


def _combined(named: dict[str, Any], cut: Tile, logits: Tensor) -> dict[str, Tensor | None]:
    """Maximum and sum of exponentials of every row and, for a gradient, <g, y>: from splits to rows."""
    n, dtype, where = named["rows"], compute_dtype(logits.dtype), logits.device
    tops, totals, dots, worsts = torch.empty((4, n * cut.splits), dtype=dtype, device=where)
    row_tops, row_totals, row_dots = torch.empty((3, n), dtype=dtype, device=where)
    if named["grad"] is None:
        dots = worsts = row_dots = None
    named = named | {"tops": tops, "totals": totals, "dots": dots, "worsts": worsts}
    launching.launch(draws.part, cut, named)
    rows = {"row_tops": row_tops, "row_totals": row_totals, "row_dots": row_dots, "BLOCK": layout.PARTS}
    launching.launch(draws.combine, Tile(1, 4, cut.splits, n, 4), named | rows)
    return {"tops": row_tops, "totals": row_totals, "dots": row_dots}
