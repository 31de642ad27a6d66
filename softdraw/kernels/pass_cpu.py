"""The passes without noise on the CPU, fused: this file turns operands into what csrc/pass.h takes.

Each function returns None where the kernels do not know a value, and nothing is computed then (``pass_reference``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softdraw.arguments import compute_dtype
from softdraw.kernels.native import PASS, STORAGE, address, function
from softdraw.kernels.pass_reference import Rows

_pack, _threads = PASS.pack, torch.get_num_threads
_CODES = {getattr(torch, name): code for name, code in STORAGE.items()}

Made = tuple[Tensor, Tensor]  # a number a row, and what backward needs
Wanted = tuple[bool, bool]  # which gradients are
Gradients = tuple[Tensor, Tensor | None]  # of x and of the second operand


def entropy(rows: Rows, scale: float, shift: float) -> Made | None:
    """scale sum p (log p + shift), batch, and (log sum exp x, sum p log p)."""
    return _forward("entropy", rows, 2, scale, shift)


def entropy_backward(
    rows: Rows, grad: Tensor, saved: Tensor, factor: float, wanted: Wanted, scale: float, shift: float
) -> Gradients:
    """The gradient for x: factor scale g p (log p - sum p log p)."""
    return _backward("entropy_backward", rows, grad, saved, factor * scale, wanted)


def index_nll(rows: Rows) -> Made | None:
    """-log p of each row's category, batch, and log sum exp x."""
    return _forward("index_nll", rows, 1)


def index_nll_backward(rows: Rows, grad: Tensor, saved: Tensor, factor: float, wanted: Wanted) -> Gradients:
    """The gradient for x: factor g (p - one-hot)."""
    return _backward("index_nll_backward", rows, grad, saved, factor, wanted)


def nll(rows: Rows, scale: float, check: int, slack: float) -> Made | None:
    """-scale sum t log p, batch, and (log sum exp x, sum t); None if a t is not what ``check`` names."""
    return _forward("nll", rows, 2, scale, slack, check)


def nll_backward(
    rows: Rows, grad: Tensor, saved: Tensor, factor: float, wanted: Wanted, scale: float, *_: float
) -> Gradients:
    """The gradients for x, factor scale g (p sum t - t), and for t, -factor scale g log p."""
    return _backward("nll_backward", rows, grad, saved, factor * scale, wanted)


def kl(rows: Rows) -> Made | None:
    """v = sum p (log p - log q), batch, and (log sum exp x, log sum exp y, v)."""
    return _forward("kl", rows, 3)


def kl_backward(rows: Rows, grad: Tensor, saved: Tensor, factor: float, wanted: Wanted) -> Gradients:
    """The gradients for x, factor g p (log p - log q - v), and for y, factor g (q - p)."""
    return _backward("kl_backward", rows, grad, saved, factor, wanted)


def drawn_backward(rows: Rows, grad: Tensor, saved: Tensor, factor: float, wanted: Wanted) -> Gradients:
    """The gradient for x of log p of the categories ``(samples, *batch)``, and of the entropy: ``grad`` has those that
    arrive, ``(samples + 1, *batch)``."""
    x = rows.x
    dx, grad = x.new_empty(x.shape), grad.contiguous()
    _run("drawn_backward", rows, x.shape, dx, None, grad, saved, factor)
    return dx, None


def _forward(name: str, rows: Rows, kept: int, scale: float = 1.0, shift: float = 0.0, check: int = 0) -> Made | None:
    """A number a row and the ``kept`` numbers that its backward pass needs, if the kernel knows every row."""
    shape = _shape(rows)
    out = rows.x.new_empty(shape[:-1], dtype=compute_dtype(rows.x.dtype))
    saved = rows.x.new_empty((*shape[:-1], kept), dtype=torch.float64)
    refused = _run(name, rows, shape, out, None, None, saved, scale, shift, check)
    return None if refused else (out, saved)


def _backward(name: str, rows: Rows, grad: Tensor, saved: Tensor, scale: float, wanted: Wanted) -> Gradients:
    """The gradients of x and, where it is wanted, of the second operand."""
    shape = _shape(rows)
    x, other = rows.x, rows.other
    dx = x.new_empty(shape)
    dother = other.new_empty(shape) if wanted[1] and other is not None else None
    _run(name, rows, shape, dx, dother, grad, saved, scale)
    return dx.sum_to_size(x.shape), dother if other is None or dother is None else dother.sum_to_size(other.shape)


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
    other, other_rows = (x, 1) if rows.other is None else _flat(rows.other, shape)
    mask = None if rows.mask is None else _like(rows.mask, rows.x.shape, x)
    second: Any = rows.other
    other_mask = None if rows.other_mask is None else _like(rows.other_mask, second.shape, other)
    category = None if rows.category is None else _plain(rows.category)
    keep = None if rows.keep is None else _plain(rows.keep)
    grad_rows = 1
    if grad is not None and any(grad.stride()):
        grad, grad_rows = _plain(grad), grad.numel()
    call = _pack(
        out.data_ptr(),
        address(other_out),
        address(x),
        0 if rows.other is None else address(other),
        address(mask),
        address(other_mask),
        address(keep),
        address(category),
        address(grad),
        saved.data_ptr(),
        scale,
        shift,
        out.numel() if grad is None else out.numel() // cols,
        cols,
        in_rows // cols,
        other_rows // cols,
        grad_rows,
        _CODES[x.dtype],
        _CODES[other.dtype],
        check,
        _threads(),
    )
    return function(name)(call)


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


def _like(mask: Tensor, shape: torch.Size, flat: Tensor) -> Tensor:
    """The mask of an operand of this shape as ``_flat`` has the operand."""
    return _plain(mask.expand(shape if flat.numel() == shape.numel() else flat.shape))


def _plain(t: Tensor) -> Tensor:
    return t if t.is_contiguous() and not t.is_neg() else t.resolve_neg().contiguous()
