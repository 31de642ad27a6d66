"""The passes without noise on the CPU, fused: this file turns operands into what csrc/pass.h takes.

Each function returns None where the kernels do not know a value, and nothing is computed then (``pass_reference``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from softdraw.arguments import compute_dtype
from softdraw.kernels.native import PASS, STORAGE, library
from softdraw.kernels.pass_reference import Rows

_pack, _threads = PASS.pack, torch.get_num_threads
_CODES = {getattr(torch, name): code for name, code in STORAGE.items()}

Made = tuple[Tensor, Tensor]  # a number a row, and what backward needs
Wanted = tuple[bool, bool]  # which gradients are
Gradients = tuple[Tensor, Tensor | None]  # of x and of the second operand


def entropy(rows: Rows, scale: float, shift: float) -> Made | None:
    """scale sum p (log p + shift), batch, and (log sum exp x, sum p log p)."""
    return _forward("entropy", rows, scale, shift)


def entropy_backward(
    rows: Rows, grad: Tensor, saved: Tensor, factor: float, wanted: Wanted, scale: float, shift: float
) -> Gradients:
    """The gradient for x: factor scale g p (log p - sum p log p)."""
    return _backward("entropy_backward", rows, grad, saved, factor * scale, wanted)


def _forward(name: str, rows: Rows, scale: float = 1.0, shift: float = 0.0, check: int = 0) -> Made | None:
    shape = _shape(rows)
    out = rows.x.new_empty(shape[:-1], dtype=compute_dtype(rows.x.dtype))
    saved = rows.x.new_empty((*shape[:-1], 2), dtype=torch.float64)
    refused = _run(name, rows, shape, out, None, None, saved, scale, shift, check)
    return None if refused else (out, saved)


def _backward(name: str, rows: Rows, grad: Tensor, saved: Tensor, scale: float, wanted: Wanted) -> Gradients:
    """The gradients of x and, where it is wanted, of the second operand."""
    shape = _shape(rows)
    dx = rows.x.new_empty(shape)
    dother = rows.other.new_empty(shape) if wanted[1] and rows.other is not None else None
    _run(name, rows, shape, dx, dother, grad, saved, scale)
    return dx.sum_to_size(rows.x.shape), None if dother is None else dother.sum_to_size(rows.other.shape)


def _run(
    name: str,
    rows: Rows,
    shape: torch.Size,
    out: Tensor,
    other_out: Tensor | None,
    grad: Tensor | None,
    saved: Tensor,
    scale: float,
    shift: float = 0.0,
    check: int = 0,
) -> int:
    """Pack the operands for the library and call the operation. What is packed is held here until it returns."""
    cols = shape[-1]
    x, in_rows = _flat(rows.x, shape)
    other, other_rows = (None, 1) if rows.other is None else _flat(rows.other, shape)
    mask = None if rows.mask is None else _like(rows.mask, rows.x, x)
    other_mask = None if rows.other_mask is None else _like(rows.other_mask, rows.other, other)
    index = None if rows.index is None else _plain(rows.index)
    keep = None if rows.keep is None else _plain(rows.keep)
    grad_rows = 1
    if grad is not None and any(grad.stride()):
        grad, grad_rows = _plain(grad), grad.numel()
    call = _pack(
        out.data_ptr(),
        _at(other_out),
        _at(x),
        _at(other),
        _at(mask),
        _at(other_mask),
        _at(keep),
        _at(index),
        _at(grad),
        saved.data_ptr(),
        scale,
        shift,
        saved.numel() // 2,
        cols,
        in_rows // cols,
        other_rows // cols,
        grad_rows,
        _CODES[x.dtype],
        0 if other is None else _CODES[other.dtype],
        check,
        _threads(),
    )
    return _function(name)(call)


def _shape(rows: Rows) -> torch.Size:
    """(*batch, K): what x and the second operand broadcast to."""
    x, other = rows.x, rows.other
    return x.shape if other is None or other.shape == x.shape else torch.broadcast_tensors(x, other)[0].shape


def _flat(t: Tensor, shape: torch.Size) -> tuple[Tensor, int]:
    """``t`` in contiguous memory, and its number of elements: it is read again and again where it lacks the first
    dimensions of ``shape``, and expanded where it lacks others."""
    own = t.shape
    if own != shape:
        ones = next((d for d, n in enumerate(own) if n != 1), len(own))
        tail = own[ones:]
        if tail != shape[len(shape) - len(tail) :] or not tail:
            t = t.expand(shape)
    t = _plain(t)
    return t, t.numel()


def _like(mask: Tensor, t: Tensor, flat: Tensor) -> Tensor:
    """The mask of ``t`` as ``_flat`` has it."""
    return _plain(mask.expand(t.shape if flat.numel() == t.numel() else flat.shape))


def _plain(t: Tensor) -> Tensor:
    return t if t.is_contiguous() and not t.is_neg() else t.resolve_neg().contiguous()


def _at(operand: Tensor | None) -> int:
    return 0 if operand is None else operand.data_ptr()


@functools.cache
def _function(name: str) -> Callable[[bytes], int]:
    return getattr(library(), f"softdraw_{name}")
