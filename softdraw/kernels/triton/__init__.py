"""The operations on a GPU, fused in Triton: noise is made where it is used, and a row is read once and written once.

What is here brings arguments to the form that kernels take and picks tiles: several narrow rows to a program, a row of
up to 2^14 columns in one program's registers, and wider rows in splits that another kernel brings together.
Everything is queued on the device's current stream, memory comes from torch's allocator, and no value is read back:
draws can be captured in a CUDA graph. Results are those of ``reference``, to a few units in the last place.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 3):
    raise ImportError(f"Triton {triton.__version__} is too old: 3.3 or newer, which torch 2.7 or newer brings along")

from softdraw.arguments import Tau, compute_dtype
from softdraw.kernels import reference
from softdraw.kernels.triton import draws, gradients, words
from softdraw.kernels.triton.layout import Tile, each, flat, index_tile, layout_of, noise_tile, tile

_PARTS = 128  # splits that are combined at a time
_T = {torch.float32: tl.float32, torch.float64: tl.float64}


def soft(
    logits: Tensor, tau: Tau, seed: Tensor | None, rows: Tensor | None, mask: Tensor | None, col_start: int = 0
) -> Tensor:
    """The relaxed draw: rows of the simplex, in the dtype and layout of the logits."""
    return _dense("soft", logits, None, tau, seed, rows, mask, col_start)


def hard(
    logits: Tensor, tau: Tau, seed: Tensor | None, rows: Tensor | None, mask: Tensor | None, col_start: int = 0
) -> Tensor:
    """The exact draw as a one-hot, in the dtype and layout of the logits; tau is checked, and moves no draw."""
    if isinstance(tau, Tensor):
        reference.checked(tau, compute_dtype(logits.dtype))
    return _dense("hard", logits, None, 1.0, seed, rows, mask, col_start)


def hard_backward(
    logits: Tensor,
    grad: Tensor,
    tau: Tau,
    seed: Tensor | None,
    rows: Tensor | None,
    mask: Tensor | None,
    col_start: int = 0,
) -> Tensor:
    """The straight-through gradient for the logits: that of the soft draw with the same noise, made again here."""
    return _dense("hard_backward", logits, grad, tau, seed, rows, mask, col_start)


def index(
    logits: Tensor, seed: Tensor, rows: Tensor | None, mask: Tensor | None, samples: int, col_start: int = 0
) -> Tensor:
    """The exact draw as an index: int64 of shape ``(samples, *batch)``; sample i is noise stream i."""
    if col_start % 4:
        return reference.index(logits, seed, rows, mask, samples, col_start)
    logits = logits.resolve_neg()
    out = torch.empty((samples, *logits.shape[:-1]), dtype=torch.int64, device=logits.device)
    if not out.numel():
        return out
    form = layout_of({"in": logits}, mask)
    if form is None:
        mask = None if mask is None else mask.contiguous()
        return index(logits.contiguous(), seed, rows, mask, samples, col_start)
    _index(form | _operands(logits, seed, rows, mask, col_start), logits, out, None)
    return out


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
    named = form | _tau(tau, y) | {"out": out, "y": y, "grad": grad, "dots": None, "T": _T[dtype]}
    named |= {"rows": n, "cols": y.shape[-1]}
    if cut.splits > 1:
        parts = torch.empty((n, cut.splits), dtype=dtype, device=y.device)
        _launch(gradients.jacobian, cut, named | {"OP": "part", "dots": parts})
        named["dots"] = parts.sum(-1)
    _launch(gradients.jacobian, cut, named | {"OP": "whole"})
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
        _launch(words.noise, cut, named | {"T": _T[dtype]})
    return out


def _dense(
    op: str,
    logits: Tensor,
    grad: Tensor | None,
    tau: Tau,
    seed: Tensor | None,
    rows: Tensor | None,
    mask: Tensor | None,
    col_start: int,
) -> Tensor:
    """An operation whose result has the shape and layout of the logits."""
    if col_start % 4:  # between two counters, whose words a thread takes whole
        given = (logits, tau) if grad is None else (logits, grad, tau)
        return getattr(reference, op)(*given, seed, rows, mask, col_start)
    logits, grad = logits.resolve_neg(), None if grad is None else grad.resolve_neg()
    out = torch.empty_like(logits)
    if not out.numel():
        return out
    form = layout_of({"out": out, "in": logits} | ({} if grad is None else {"grad": grad}), mask)
    if form is None:  # rare: a permuted batch of three dimensions or more
        grad, mask = (None if x is None else x.contiguous() for x in (grad, mask))
        return out.copy_(_dense(op, logits.contiguous(), grad, tau, seed, rows, mask, col_start))
    named = form | _operands(logits, seed, rows, mask, col_start) | _tau(tau, logits)
    named |= {"out": out, "grad": grad, "OP": op}
    cut = tile(named["rows"], named["cols"], logits.dtype)
    if cut.splits == 1:
        _launch(draws.whole, cut, named)
    elif op == "hard":
        tops = torch.empty(named["rows"], dtype=compute_dtype(logits.dtype), device=logits.device)
        ats = torch.empty(named["rows"], dtype=torch.int64, device=logits.device)
        _index(named, logits, ats, tops)
        _launch(draws.one_hot, cut, named | {"tops": tops, "ats": ats})
    else:
        _launch(draws.write, cut, named | _combined(named, cut, logits))
    return out


def _combined(named: dict[str, Any], cut: Tile, logits: Tensor) -> dict[str, Tensor | None]:
    """Maximum and sum of exponentials of every row and, for a gradient, <g, y>: from splits to rows."""
    n, dtype, where = named["rows"], compute_dtype(logits.dtype), logits.device
    tops, totals, dots, worsts = torch.empty((4, n * cut.splits), dtype=dtype, device=where)
    row_tops, row_totals, row_dots = torch.empty((3, n), dtype=dtype, device=where)
    if named["grad"] is None:
        dots = worsts = row_dots = None
    named = named | {"tops": tops, "totals": totals, "dots": dots, "worsts": worsts}
    _launch(draws.part, cut, named)
    rows = {"row_tops": row_tops, "row_totals": row_totals, "row_dots": row_dots, "BLOCK": _PARTS}
    _launch(draws.combine, Tile(1, 4, cut.splits, n, 4), named | rows)
    return {"tops": row_tops, "totals": row_totals, "dots": row_dots}


def _index(named: dict[str, Any], logits: Tensor, ats: Tensor, tops: Tensor | None) -> None:
    """Write the place of the highest score of every draw and, where asked, that score."""
    cut = index_tile(ats.numel(), named["cols"], logits.dtype)
    named = named | {"draws": ats.numel(), "ONCE": ats.numel() == named["rows"], "ats": ats, "tops": tops}
    if cut.splits == 1:
        _launch(draws.index, cut, named)
        return
    n, dtype = ats.numel() * cut.splits, compute_dtype(logits.dtype)
    parts = {"tops": torch.empty(n, dtype=dtype, device=ats.device), "ats": ats.new_empty(n)}
    _launch(draws.index, cut, named | parts)
    whole = {"row_tops": tops, "row_ats": ats, "BLOCK": _PARTS}
    _launch(draws.combine_index, Tile(1, 4, cut.splits, ats.numel(), 4), parts | whole)


def _operands(
    logits: Tensor, seed: Tensor | None, rows: Tensor | None, mask: Tensor | None, col_start: int
) -> dict[str, Any]:
    """What every draw is made from, as kernels name it."""
    batch = logits.shape[:-1]
    seeds, each_seed = (None, False) if seed is None else each(seed, batch)
    return {
        "logits": logits,
        "mask": None if mask is None else mask.view(torch.uint8),
        "seeds": seeds,
        "ids": None if rows is None else flat(rows, batch),
        "rows": batch.numel(),
        "cols": logits.shape[-1],
        "quad": col_start // 4,
        "T": _T[compute_dtype(logits.dtype)],
        "EACH_SEED": each_seed,
    }


def _tau(tau: Tau, x: Tensor) -> dict[str, Any]:
    """tau as a pointer or else as a number, and whether each row has its own."""
    dtype = compute_dtype(x.dtype)
    if isinstance(tau, Tensor):
        taus, each_row = each(reference.checked(tau, dtype), x.shape[:-1])
        return {"taus": taus, "tau": 1.0, "EACH_TAU": each_row}
    if dtype == torch.float64:  # a number would reach the kernel as float32
        return {"taus": torch.full((), tau, dtype=dtype, device=x.device), "tau": 1.0, "EACH_TAU": False}
    return {"taus": None, "tau": tau, "EACH_TAU": False}


def _launch(kernel: Any, cut: Tile, named: dict[str, Any]) -> None:
    """Queue a kernel on the device of its tensors, with those of the named arguments that it takes."""
    named = named | cut.named
    with torch.cuda.device_of(next(x for x in named.values() if isinstance(x, Tensor))):
        kernel[(cut.programs,)](**{x: named[x] for x in kernel.arg_names if x in named}, num_warps=cut.warps)
