"""The passes without noise on the CPU, fused: this file turns operands into what csrc/pass.h takes.

A forward pass returns None where the kernels do not know a value, and nothing is computed then (``pass_reference``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from softdraw.kernels.native import PASS, REDUCTIONS, STORAGE, address, function
from softdraw.kernels.pass_reference import Rows
from softdraw.kernels.pass_sizes import common_shape, saved_words, words

_pack, _threads, _empty, _empty_like = PASS.pack, torch.get_num_threads, torch.empty, torch.empty_like
_CODES = {getattr(torch, name): code for name, code in STORAGE.items()}
_WIDE = {dtype: torch.float64 if dtype == torch.float64 else torch.float32 for dtype in _CODES}
_CPU, _SAVED = torch.device("cpu"), torch.float64  # the kernels write to the CPU, whatever the default device is

Made = tuple[Tensor, Tensor]  # numbers of rows, or what they reduce to, and what backward needs
Wanted = tuple[bool, bool]  # which gradients are
Gradients = tuple[Tensor, Tensor | None]  # of x and of the second operand


def entropy(rows: Rows, reduction: str, scale: float, shift: float) -> Made | None:
    """scale sum p (log p + shift), batch, and what its backward pass needs."""
    return _forward("entropy", rows, reduction, scale, shift)


def entropy_backward(
    rows: Rows, grad: Tensor, saved: Tensor, reduction: str, wanted: Wanted, scale: float, shift: float
) -> Gradients:
    """The gradient for x: scale g p (log p - sum p log p)."""
    return _backward("entropy_backward", rows, grad, saved, reduction, wanted, scale)


def index_nll(rows: Rows, reduction: str) -> Made | None:
    """-log p of each row's category, batch."""
    return _forward("index_nll", rows, reduction)


def index_nll_backward(rows: Rows, grad: Tensor, saved: Tensor, reduction: str, wanted: Wanted) -> Gradients:
    """The gradient for x: g (p - one-hot)."""
    return _backward("index_nll_backward", rows, grad, saved, reduction, wanted)


def nll(rows: Rows, reduction: str, scale: float, check: int, slack: float) -> Made | None:
    """-scale sum t log p, batch; None if a t is not what ``check`` names."""
    return _forward("nll", rows, reduction, scale, slack, check)


def nll_backward(
    rows: Rows, grad: Tensor, saved: Tensor, reduction: str, wanted: Wanted, scale: float, *_: float
) -> Gradients:
    """The gradients for x, scale g (p sum t - t), and for t, -scale g log p."""
    return _backward("nll_backward", rows, grad, saved, reduction, wanted, scale)


def kl(rows: Rows, reduction: str) -> Made | None:
    """v = sum p (log p - log q), batch."""
    return _forward("kl", rows, reduction)


def kl_backward(rows: Rows, grad: Tensor, saved: Tensor, reduction: str, wanted: Wanted) -> Gradients:
    """The gradients for x, g p (log p - log q - v), and for y, g (q - p)."""
    return _backward("kl_backward", rows, grad, saved, reduction, wanted)


kl_with_slope, kl_with_slope_backward = kl, kl_backward  # where they differ, the kernel refuses


def drawn_backward(rows: Rows, grad: Tensor, saved: Tensor, reduction: str, wanted: Wanted) -> Gradients:
    """The gradient for x of log p of the categories ``(samples, *batch)``, and of the entropy: ``grad`` has those that
    arrive, ``(samples + 1, *batch)``."""
    x = rows.x
    dx, grad, count = x.new_empty(x.shape), grad.contiguous(), x.numel() // x.shape[-1]
    _run("drawn_backward", rows, x.shape, count, dx, None, grad, saved, reduction, 1.0, 0.0, 0)
    return dx, None


def usage(rows: Rows, reduction: str, loss: int, grouped: bool) -> Made | None:
    """The loss of each group, and the slopes of it for the mean law, with (largest x, 1 / sum exp (x - largest))."""
    x = rows.x
    groups = x.shape[0] if grouped else 1
    out = _empty((groups,) if grouped and reduction == "none" else (), dtype=_WIDE[x.dtype], device=_CPU)
    saved = _empty(saved_words("usage", rows, reduction, (loss, grouped)), dtype=_SAVED, device=_CPU)
    refused = _run(
        "usage", rows, x.shape, x.numel() // x.shape[-1], out, None, None, saved, reduction, 1.0, 0.0, loss, groups
    )
    return None if refused else (out, saved)


def usage_backward(
    rows: Rows, grad: Tensor, saved: Tensor, reduction: str, wanted: Wanted, loss: int, grouped: bool
) -> Gradients:
    """The gradient for x: g w p (s - sum p s), with the slopes s."""
    groups = rows.x.shape[0] if grouped else 1
    return _backward("usage_backward", rows._replace(other=None), grad, saved, reduction, wanted, 1.0, groups)


def _forward(
    name: str, rows: Rows, reduction: str, scale: float = 1.0, shift: float = 0.0, check: int = 0
) -> Made | None:
    """A number a row and those that its backward pass needs, if the kernel knows every row."""
    x, other = rows[0], rows[1]
    dtype = x.dtype
    shape = x.shape if other is None else common_shape(x, other)
    count = x.numel() // shape[-1] if other is None else shape[:-1].numel()
    out = _empty(shape[:-1] if reduction == "none" else (), dtype=_WIDE[dtype], device=_CPU)
    saved = _empty(words(name, count, dtype, reduction), dtype=_SAVED, device=_CPU)
    refused = _run(name, rows, shape, count, out, None, None, saved, reduction, scale, shift, check)
    return None if refused else (out, saved)


def _backward(
    name: str,
    rows: Rows,
    grad: Tensor,
    saved: Tensor,
    reduction: str,
    wanted: Wanted,
    scale: float = 1.0,
    groups: int = 1,
) -> Gradients:
    """The gradients of x and, where it is wanted, of the second operand."""
    x, other = rows[0], rows[1]
    if other is None:
        dx = _empty_like(x) if x.is_contiguous() else x.new_empty(x.shape)
        count = x.numel() // x.shape[-1]
        _run(name, rows, x.shape, count, dx, None, grad, saved, reduction, scale, 0.0, 0, groups)
        return dx, None
    shape = common_shape(x, other)
    dx, dother = x.new_empty(shape), other.new_empty(shape) if wanted[1] else None
    _run(name, rows, shape, shape[:-1].numel(), dx, dother, grad, saved, reduction, scale, 0.0, 0, groups)
    if shape == x.shape == other.shape:
        return dx, dother
    return dx.sum_to_size(x.shape), None if dother is None else dother.sum_to_size(other.shape)


def _run(
    name: str,
    rows: Rows,
    shape: torch.Size,
    count: int,
    out: Tensor,
    other_out: Tensor | None,
    grad: Tensor | None,
    saved: Tensor,
    reduction: str,
    scale: float,
    shift: float,
    check: int,
    groups: int = 1,
) -> int:
    """Pack the operands for the library and call the operation. What is packed is held here until it returns."""
    x, other, mask, other_mask, category, keep, weight = rows
    cols = shape[-1]
    in_rows, other_rows, other_code, grad_rows = count, 1, 0, 1
    if other is None or name == "usage":
        x, other = _plain(x), None if other is None else _plain(other)
    else:
        own = other.shape
        x, elements = _flat(x, shape)
        in_rows = elements // cols
        other, elements = _flat(other, shape)
        other_rows, other_code = elements // cols, _CODES[other.dtype]
        other_mask = None if other_mask is None else _like(other_mask, own, other)
    if mask is not None:
        mask = _like(mask, rows[0].shape, x)
    if category is not None:
        category = _plain(category)
    if keep is not None:
        keep = _plain(keep)
    if weight is not None:
        weight = _plain(weight)
    if grad is not None:
        if any(grad.stride()):
            grad, grad_rows = _plain(grad), grad.numel()
        else:  # one number for all rows
            grad = grad.resolve_neg()
    call = _pack(
        out.data_ptr(),
        0 if other_out is None else other_out.data_ptr(),
        x.data_ptr() or address(x),
        0 if other is None else other.data_ptr() or address(other),
        0 if mask is None else mask.data_ptr() or address(mask),
        0 if other_mask is None else other_mask.data_ptr() or address(other_mask),
        0 if keep is None else keep.data_ptr() or address(keep),
        0 if weight is None else weight.data_ptr() or address(weight),
        0 if category is None else category.data_ptr() or address(category),
        0 if grad is None else grad.data_ptr() or address(grad),
        saved.data_ptr(),
        scale,
        shift,
        count,
        cols,
        in_rows,
        other_rows,
        grad_rows,
        _CODES[x.dtype],
        other_code,
        check,
        REDUCTIONS[reduction],
        groups,
        _threads(),
    )
    return function(name)(call)


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
