"""Passes of laws and losses over rows of logits in Triton: a number a row, and its gradient. ``pass_reference`` has the
formulas, csrc/pass_*.h the same passes on the CPU.

Nothing is refused and nothing is waited for: at infinite logits each pass gives the limit that its formula has. What a
loss checks of its target, it asserts itself on a GPU (``operators/passes.py``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softdraw.arguments import compute_dtype
from softdraw.kernels import pass_reference
from softdraw.kernels.pass_cpu import Gradients, Made, Wanted
from softdraw.kernels.pass_reference import Rows
from softdraw.kernels.triton import index_kernels, launching, pass_kernels
from softdraw.kernels.triton.layout import rule_tile
from softdraw.kernels.triton.usage import usage as usage
from softdraw.kernels.triton.usage import usage_backward as usage_backward


def entropy(rows: Rows, reduction: str, scale: float, shift: float) -> Made:
    """scale sum p (log p + shift), batch."""
    return _forward("entropy", rows, reduction, 3, scale, shift)


def entropy_backward(
    rows: Rows, grad: Tensor, saved: Tensor, reduction: str, wanted: Wanted, scale: float, shift: float
) -> Gradients:
    """The gradient for x: scale g p (log p - sum p log p)."""
    return _backward("entropy", rows, grad, saved, reduction, wanted, scale)


def index_nll(rows: Rows, reduction: str) -> Made:
    """-log p of each row's category, batch."""
    return _forward("index_nll", rows, reduction, 2)


def index_nll_backward(rows: Rows, grad: Tensor, saved: Tensor, reduction: str, wanted: Wanted) -> Gradients:
    """The gradient for x: g (p - one-hot)."""
    return _backward("index_nll", rows, grad, saved, reduction, wanted)


def nll(rows: Rows, reduction: str, scale: float, *_: float) -> Made:
    """-scale sum t log p, batch."""
    return _forward("nll", rows, reduction, 3, scale)


def nll_backward(
    rows: Rows, grad: Tensor, saved: Tensor, reduction: str, wanted: Wanted, scale: float, *_: float
) -> Gradients:
    """The gradients for x, scale g (p sum t - t), and for t, -scale g log p."""
    return _backward("nll", rows, grad, saved, reduction, wanted, scale)


def kl(rows: Rows, reduction: str) -> Made:
    """sum p (log p - log q), batch."""
    return _forward("kl", rows, reduction, 6)


def kl_backward(rows: Rows, grad: Tensor, saved: Tensor, reduction: str, wanted: Wanted) -> Gradients:
    """The gradients for x and for y."""
    return _backward("kl", rows, grad, saved, reduction, wanted)


def kl_with_slope(rows: Rows, reduction: str) -> Made:
    """The same with a huge gradient, and a finite one, where it is infinite."""
    return _forward("kl_with_slope", rows, reduction, 6)


def kl_with_slope_backward(rows: Rows, grad: Tensor, saved: Tensor, reduction: str, wanted: Wanted) -> Gradients:
    """The gradients for x and for y."""
    return _backward("kl_with_slope", rows, grad, saved, reduction, wanted)


def drawn_backward(rows: Rows, grad: Tensor, saved: Tensor, _reduction: str, _wanted: Wanted) -> Gradients:
    """The gradient of what index draws say about their law, ``grad`` of the shape ``(samples + 1, *batch)``: those of
    the log-probabilities of the categories, ``(samples, *batch)``, and then that of the entropy."""
    named, shape = _operands("drawn", rows)
    dx = rows.x.new_empty(shape)
    named |= {"grad": grad.resolve_neg().contiguous(), "samples": len(grad) - 1, "out": dx, "saved": saved.contiguous()}
    _launch(index_kernels.drawn_backward, named)
    return dx.sum_to_size(rows.x.shape), None


def _forward(op: str, rows: Rows, reduction: str, kept: int, scale: float = 1.0, shift: float = 0.0) -> Made:
    named, shape = _operands(op, rows)
    dtype = compute_dtype(rows.x.dtype)
    out = rows.x.new_empty(shape[:-1], dtype=dtype)
    saved = rows.x.new_empty((*shape[:-1], kept), dtype=dtype)
    named |= launching.number("scale", scale, rows.x) | launching.number("shift", shift, rows.x)
    _launch(pass_kernels.forward, named | {"out": out, "saved": saved, "KEPT": kept})
    return pass_reference.reduced(out, rows.keep, rows.weight, reduction), saved


def _backward(
    op: str, rows: Rows, grad: Tensor, saved: Tensor, reduction: str, wanted: Wanted, scale: float = 1.0
) -> Gradients:
    named, shape = _operands(op, rows)
    grad = _of_rows(grad, rows, reduction, shape[:-1])
    x, other = rows.x, rows.other
    dx = x.new_empty(shape)
    dother = other.new_empty(shape) if wanted[1] and other is not None else None
    one = not any(grad.stride())
    grad = grad.resolve_neg() if one else grad.resolve_neg().contiguous()
    named |= launching.number("scale", scale, x) | {"grad": grad, "grad_rows": 1 if one else grad.numel()}
    _launch(pass_kernels.backward, named | {"out": dx, "other_out": dother, "saved": saved, "KEPT": saved.shape[-1]})
    return dx.sum_to_size(x.shape), dother if dother is None or other is None else dother.sum_to_size(other.shape)


def _of_rows(grad: Tensor, rows: Rows, reduction: str, batch: torch.Size) -> Tensor:
    """The gradient of each row's own number, from that of what they reduce to; one number where it is that of all."""
    if rows.weight is None and (reduction != "mean" or rows.keep is None):
        grad = grad / max(batch.numel(), 1) if reduction == "mean" else grad
        return grad.expand(batch)
    with torch.enable_grad():
        each = torch.zeros(batch, dtype=grad.dtype, device=grad.device).requires_grad_()
        y = pass_reference.reduced(each, rows.keep, rows.weight, reduction)
    return torch.autograd.grad(y, each, grad)[0]


def _operands(op: str, rows: Rows) -> tuple[dict[str, Any], torch.Size]:
    """What a pass reads, as kernels name it, and (*batch, K)."""
    x, other, mask, other_mask, category, keep, _ = rows
    shape = x.shape if other is None or other.shape == x.shape else torch.broadcast_tensors(x, other)[0].shape
    named: dict[str, Any] = {"OP": op, "T": launching.TYPES[compute_dtype(x.dtype)]}
    named |= {"rows": shape[:-1].numel(), "cols": shape[-1], "UNIT": 4 if shape[-1] % 4 == 0 else 1}
    named |= _operand("logits", "mask", "in_rows", x, mask, shape)
    named |= _operand("other", "other_mask", "other_rows", other, other_mask, shape)
    named["category"] = None if category is None else category.contiguous()
    named["keep"] = None if keep is None else keep.contiguous().view(torch.uint8)
    return named, shape


def _operand(
    name: str, mask_name: str, rows_name: str, t: Tensor | None, mask: Tensor | None, shape: torch.Size
) -> dict[str, Any]:
    """An operand and its mask in contiguous memory. Where it lacks the first dimensions of ``shape``, its rows are read
    again and again; where it lacks others, it is expanded."""
    if t is None:
        return {name: None, mask_name: None, rows_name: 1}
    own = t.shape
    ones = next((d for d, n in enumerate(own) if n != 1), len(own) - 1)
    tail = own[ones:]
    if tail != shape[len(shape) - len(tail) :]:
        t, mask = t.expand(shape), None if mask is None else mask.expand(shape)
    t = t.resolve_neg().contiguous()
    mask = None if mask is None else mask.expand(t.shape).contiguous().view(torch.uint8)
    return {name: t, mask_name: mask, rows_name: t.numel() // shape[-1]}


def _launch(kernel: Any, named: dict[str, Any]) -> None:
    if named["rows"]:
        launching.launch(kernel, rule_tile(named["rows"], named["cols"], named["logits"].dtype).by_row, named)
