"""The operations on the CPU, fused: each reads its inputs once and writes its output, in one pass over every row.

This file turns arguments into what csrc/call.h takes: data pointers, and a layout of strides where rows do not simply
follow one another. Noise, softmax and reductions are as in ``reference``, which these functions equal.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable

import torch
from torch import Tensor

from softdraw.arguments import Draw, Tau, compute_dtype
from softdraw.kernels import bits_cpu, pass_cpu, reference
from softdraw.kernels.native import CALL, STORAGE, library

_pack, _empty_like, _threads = CALL.pack, torch.empty_like, torch.get_num_threads  # looked up once
DTYPES = {getattr(torch, name): code for name, code in STORAGE.items()}
passes, bits = pass_cpu, bits_cpu
_LIMITS = {dtype: (torch.finfo(dtype).tiny, torch.finfo(dtype).max) for dtype in (torch.float32, torch.float64)}


def soft(draw: Draw) -> Tensor:
    """The relaxed draw: rows of the simplex, in the dtype and layout of the logits."""
    return _run("soft", _empty_like(draw.logits), draw)


def hard(draw: Draw) -> Tensor:
    """The exact draw as a one-hot, in the dtype and layout of the logits; tau is checked, and moves no draw."""
    return _run("hard", _empty_like(draw.logits), draw)


def soft_backward(y: Tensor, grad: Tensor, tau: Tau) -> Tensor:
    """The gradient for the logits of a soft draw ``y``."""
    return _run("soft_backward", _empty_like(y), Draw(y, tau, None), grad)


def hard_backward(draw: Draw, grad: Tensor) -> Tensor:
    """The straight-through gradient for the logits: that of the soft draw with the same noise, made again here."""
    return _run("hard_backward", _empty_like(draw.logits), draw, grad)


def index(draw: Draw, samples: int) -> Tensor:
    """The exact draw as an index: int64 of shape ``(samples, *batch)``; sample i is noise stream i."""
    out = torch.empty((samples, *draw.logits.shape[:-1]), dtype=torch.int64, device=draw.logits.device)
    return _run("index", out, draw, samples=samples)


def gumbel(seed: Tensor, rows: Tensor, cols: int, col_start: int, stream: Tensor, dtype: torch.dtype) -> Tensor:
    """Standard Gumbel noise of shape ``(..., cols)``."""
    if stream.numel() != 1:  # a stream for every row: vmap over streams, which is rare
        return reference.gumbel(seed, rows, cols, col_start, stream, dtype)
    batch = torch.broadcast_tensors(seed, rows)[0].shape[:-1]  # broadcast_shapes would import sympy: 0.3 s
    out = torch.empty((*batch, cols), dtype=dtype, device=rows.device)
    return _run("gumbel", out, Draw(out, 1.0, seed, rows, None, col_start), stream=int(stream))


def _run(name: str, out: Tensor, draw: Draw, grad: Tensor | None = None, samples: int = 1, stream: int = 0) -> Tensor:
    """Pack the inputs for the library and call the operation; returns ``out``. Noise has no logits: ``out`` stands in
    their place."""
    logits, tau, seed, rows, mask, col_start = draw
    shape = logits.shape
    cols = shape[-1]
    layout, mask_at, rows_at, taus_at = None, 0, 0, 0
    # A draw of contiguous logits with one seed and one tau needs no layout. _layout knows what else needs none.
    if not (
        type(tau) is float
        and rows is None
        and mask is None
        and logits.is_contiguous()
        and (seed is None or not seed.dim())
        and (grad is None or grad.is_contiguous())
    ):
        tau, taus = _number_or_rows(tau, compute_dtype(logits.dtype))
        given = None if logits is out else logits.resolve_neg()
        grad = None if grad is None else grad.resolve_neg()
        layout = _layout(shape, (None if name == "index" else out, given, grad, mask, seed, rows, taus))
        mask_at, rows_at, taus_at = _at(mask), _at(rows), _at(taus)
        logits = out if given is None else given
    call = _pack(
        out.data_ptr(),
        0 if logits is out else logits.data_ptr() or _at(logits),
        0 if grad is None else grad.data_ptr() or _at(grad),
        mask_at,
        0 if seed is None else seed.data_ptr() or _at(seed),
        rows_at,
        taus_at,
        tau,
        logits.numel() // (cols or 1),
        cols,
        DTYPES[logits.dtype],
        col_start,
        stream,
        samples,
        _threads(),
    )
    _function(name)(call, layout)
    return out


def _at(operand: Tensor | None) -> int:
    """The address of an operand; 0, which the library reads as "no such operand", if there is none. A tensor without
    elements may have the address 0, since the library reads nothing of it; any other without memory is an error."""
    address = 0 if operand is None else operand.data_ptr()
    if operand is not None and not address and operand.numel():
        raise TypeError(
            f"a {type(operand).__name__} of shape {tuple(operand.shape)} has no memory for the CPU kernels to read: "
            "pass a plain tensor, or wrap the logits in the same way"
        )
    return address


@functools.cache
def _function(name: str) -> Callable[[bytes, bytes | None], None]:
    return getattr(library(), f"softdraw_{name}")


def _number_or_rows(tau: Tau, dtype: torch.dtype) -> tuple[float, Tensor | None]:
    """One tau as a number, or one for every row as a tensor in the compute dtype; illegal values are errors."""
    if not isinstance(tau, Tensor):
        return tau, None
    if tau.numel() != 1:
        return 1.0, reference.checked(tau, dtype)
    number = tau.item()
    if not 0 < number < math.inf:
        reference.checked(tau, dtype)
    low, high = _LIMITS[dtype]
    return min(max(number, low), high), None


def _layout(shape: torch.Size, operands: tuple[Tensor | None, ...]) -> bytes | None:
    """Sizes of the batch and the strides of every operand over it, as csrc/call.h has them; None if rows simply follow
    one another in all of them, and seed and tau are the same for all."""
    *dense, seed, rows, taus = operands
    if (
        taus is None
        and (seed is None or seed.numel() == 1)
        and (rows is None or (rows.is_contiguous() and rows.shape[:-1] == shape[:-1]))
        and all(t is None or (t.is_contiguous() and t.shape == shape) for t in dense)
    ):
        return None
    batch, n = shape[:-1], len(shape)
    strides = [(0,) * n if t is None else t.expand(shape).stride() for t in dense]
    strides += [(0,) * n if t is None else t.expand(*batch, 1).stride() for t in (seed, rows, taus)]
    numbers = (n - 1, *batch, *(step for operand in strides for step in operand))
    return struct.pack(f"={len(numbers)}q", *numbers)
