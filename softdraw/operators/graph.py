"""Passes over rows and over bits in a graph that torch.compile makes on the CPU: one operator forward, one backward.

Of a formula the compiler makes several loops, with exponentials and logarithms of torch's: 2 to 11 times the time of
the pass that eager code takes. Whatever else looks at operations (torch.export, torch.func, DTensors) gets formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from softdraw import kernels
from softdraw.arguments import compute_dtype
from softdraw.kernels import bits_cpu, pass_sizes
from softdraw.kernels.bits_cpu import Bits
from softdraw.kernels.pass_reference import Rows
from softdraw.operators.operator import in_graph, operator
from softdraw.private_torch import constant_of_graphs
from softdraw.tensors import is_dtensor


def takes(x: Tensor, *rest: Any) -> bool:
    """Whether logits ``x`` are in such a graph, beside operands that it may hold, and the kernels know their dtype."""
    if not in_graph() or not x.is_cpu or any(is_dtensor(t) for t in (x, *rest)):
        return False
    return x.dtype in bits_cpu.CODES and _compiled(x.dtype)


@constant_of_graphs
def _compiled(dtype: torch.dtype) -> bool:
    body = kernels.body(torch.device("cpu"), dtype)
    return body.passes is not None and body.over_bits is not None


# Rows. What the kernels refuse goes through the formula, inside of the operator, and so does its gradient.

PASSES: dict[str, Any] = {}  # every pass by its name
_ROWS = "Tensor x, Tensor? other, Tensor? mask, Tensor? other_mask, Tensor? category, Tensor? keep, Tensor? weight"
_HOW = "str name, float[] numbers, str reduction"


def rows_pass(name: str, rows: Rows, numbers: tuple, reduction: str) -> Tensor:
    """The pass of that name, with its gradient."""
    return _RowsPass.apply(*rows, name, [float(n) for n in numbers], reduction)  # pyright: ignore


class _RowsPass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        ctx.how = inputs[7:]
        out, saved, refused = _forward(*inputs)
        ctx.save_for_backward(saved, refused, *inputs[:7])
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple:
        wanted = ctx.needs_input_grad[:2]
        dx, dother = _backward(grads[0], *ctx.saved_tensors, *ctx.how, *wanted)
        return dx if wanted[0] else None, dother if wanted[1] else None, *[None] * 8


def _forward_body(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    rows, (name, numbers, reduction) = Rows(*inputs[:7]), inputs[7:]
    numbers, operation = _exact(numbers), PASSES[name]
    made = operation.made(kernels.body_for(rows.x).passes, rows, reduction, numbers)
    refused = torch.full((), made is None, device="cpu")
    if made is not None:
        return *made, refused
    saved = rows.x.new_empty(pass_sizes.saved_words(name, rows, reduction, numbers), dtype=torch.float64)
    return operation.value(rows, numbers, reduction).contiguous(), saved, refused


def _forward_fake(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    rows, (name, numbers, reduction) = Rows(*inputs[:7]), inputs[7:]
    x, numbers = rows.x, _exact(numbers)
    shape = () if reduction != "none" else pass_sizes.result_shape(name, rows, numbers)
    words = pass_sizes.saved_words(name, rows, reduction, numbers)
    out, saved = x.new_empty(shape, dtype=compute_dtype(x.dtype)), x.new_empty(words, dtype=torch.float64)
    return out, saved, x.new_empty((), dtype=torch.bool)


def _backward_body(grad: Tensor, saved: Tensor, refused: Tensor, *inputs: Any) -> tuple[Tensor, Tensor]:
    rows, (name, numbers, reduction), wanted = Rows(*inputs[:7]), inputs[7:10], inputs[10:]
    numbers, operation = _exact(numbers), PASSES[name]
    if refused:
        leaves = (
            t if t is None else t.detach().requires_grad_(asked) for t, asked in zip(rows[:2], wanted, strict=True)
        )
        made = operation.by_formula(Rows(*leaves, *rows[2:]), grad, numbers, reduction, wanted)  # pyright: ignore
    else:
        made = operation.by_body(kernels.body_for(rows.x).passes, rows, grad, saved, reduction, wanted, numbers)
    return _both(made, rows.x, rows.other, wanted)


_forward = operator("rows_pass", f"({_ROWS}, {_HOW}) -> (Tensor, Tensor, Tensor)", _forward_body, _forward_fake)
_backward = operator(
    "rows_pass_backward",
    f"(Tensor grad, Tensor saved, Tensor refused, {_ROWS}, {_HOW}, bool for_x, bool for_other) -> (Tensor, Tensor)",
    _backward_body,
    lambda grad, saved, refused, x, other, *rest: _empty_gradients(x, other, rest[-2:]),
)


def _exact(numbers: Sequence[float]) -> tuple[float, ...]:
    """Codes are integers, and the library packs a number that it wants as such."""
    return tuple(int(n) if n == int(n) else n for n in numbers)


def _both(made: Sequence[Tensor | None], x: Tensor, other: Any, wanted: Sequence[bool]) -> tuple[Tensor, Tensor]:
    """Both gradients in contiguous memory; an empty one stands for what is not wanted."""
    nothing = x.new_empty(0)
    pair = (g.contiguous() if asked and g is not None else nothing for g, asked in zip(made, wanted, strict=False))
    dx, dother = pair
    return dx, x.new_empty(0) if dx is dother else dother


def _empty_gradients(x: Tensor, other: Any, wanted: Sequence[bool]) -> tuple[Tensor, Tensor]:
    dx = x.new_empty(x.shape if wanted[0] else 0)
    return dx, other.new_empty(other.shape) if wanted[1] else x.new_empty(0)


# Bits.

_BITS = (
    "Tensor x, Tensor? other, Tensor? weight, Tensor? pos_weight, Tensor? mask, "
    "float number, int reduction, bool law, int allowed, SymInt rows, str name"
)


def bits_pass(name: str, bits: Bits) -> tuple[Tensor, Tensor]:
    """The pass of that name with its gradient, and whether every target was allowed."""
    return _BitsPass.apply(*bits, name)  # pyright: ignore


class _BitsPass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        ctx.how = inputs[5:]
        out, saved, legal = _bits(*inputs)
        ctx.save_for_backward(saved, *inputs[:5])
        ctx.mark_non_differentiable(legal)
        return out, legal

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple:
        wanted = ctx.needs_input_grad[:2]
        dx, dother = _bits_backward(grads[0], *ctx.saved_tensors, *ctx.how, *wanted)
        return dx if wanted[0] else None, dother if wanted[1] else None, *[None] * 9


def _bits_body(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    bits, name = Bits(*inputs[:-1]), inputs[-1]
    made = getattr(bits_cpu, name)(bits)
    out, saved, *legal = made if isinstance(made, tuple) else (made, None)
    saved = bits.x.new_empty(0, dtype=torch.float64) if saved is None else saved
    return out, saved, torch.full((), all(legal), device="cpu")


def _bits_fake(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    bits, name = Bits(*inputs[:-1]), inputs[-1]
    x, wide = bits.x, compute_dtype(bits.x.dtype)
    rowwise, plain = name == "share", not bits.reduction
    words = 2 * bits.rows + 1 if rowwise else bits_cpu.numbers_kept(bits) if name == "nll" else 0
    shape = () if not plain else (bits.rows,) if rowwise else x.shape
    narrow = not rowwise and plain and (bits.law or name != "nll")
    out = x.new_empty(shape, dtype=x.dtype if narrow else wide)
    return out, x.new_empty(words, dtype=torch.float64), x.new_empty((), dtype=torch.bool)


def _bits_backward_body(grad: Tensor, saved: Tensor, *inputs: Any) -> tuple[Tensor, Tensor]:
    bits, name, wanted = Bits(*inputs[:10]), inputs[10], inputs[11:]
    run = getattr(bits_cpu, f"{name}_backward")
    if name == "kl":
        made = run(bits, grad, wanted)
    elif name in ("nll", "share"):
        made = run(bits, grad if name == "nll" else grad.contiguous(), saved if saved.numel() else None), None
    else:
        made = run(bits, grad), None
    return _both(made, bits.x, bits.other, wanted)


_bits = operator("bits_pass", f"({_BITS}) -> (Tensor, Tensor, Tensor)", _bits_body, _bits_fake)
_bits_backward = operator(
    "bits_pass_backward",
    f"(Tensor grad, Tensor saved, {_BITS}, bool for_x, bool for_other) -> (Tensor, Tensor)",
    _bits_backward_body,
    lambda grad, saved, x, other, *rest: _empty_gradients(x, other, rest[-2:]),
)
