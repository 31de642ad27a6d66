"""Passes without noise as autograd sees them: one number for each row, from one pass over the logits; one more for the
gradient.

In eager code a pass is the fast body of ``kernels``, with its gradient in a plain ``autograd.Function``. Where there is
none, where it does not know a value, and for whatever looks at the operations (torch.compile, export, torch.func,
forward mode, function and dispatch modes, DTensors), the pass is its formula in torch's own operations
(``pass_reference``), which have every derivative. A gradient that is differentiated again is taken through it too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, is_grad_enabled

from softdraw import kernels
from softdraw.kernels import pass_reference
from softdraw.kernels.native import STORAGE
from softdraw.kernels.pass_reference import Rows
from softdraw.private_torch import function_modes, has_storage, quick_apply
from softdraw.tensors import PLAIN, is_plain

DTYPES = {getattr(torch, name) for name in STORAGE}  # of logits and second operands, in every body


class Pass:
    """An operation of ``Rows`` and numbers. A body that lacks it may have ``like``, which refuses where they differ."""

    def __init__(self, name: str, formula: Callable[..., Tensor], like: str = "") -> None:
        self._name, self._formula, self._like = name, formula, like

    def __call__(
        self, rows: Rows, *numbers: Any, reduction: str = "none", check: Callable[[], Any] | None = None
    ) -> Tensor:
        """A number for each row in the compute dtype, ``batch``; or their ``"mean"`` (0 of none) or ``"sum"``.

        ``check`` raises an error for operands that are illegal. On the CPU a fast body looks at values itself. Where
        nothing may wait for a value, ``check`` asserts in the stream of the device, beside a body or a formula.
        """
        if rows.x.dtype not in DTYPES or rows.other is not None:
            rows = _in_ordinary_dtypes(rows)
        made = self._made(rows, numbers)
        if check is not None and (made is None or not rows.x.is_cpu):
            check()
        if made is None:
            return _reduced(self._formula(rows, *numbers), reduction)
        out = _reduced(made[0], reduction)
        x, other = rows.x, rows.other
        if is_grad_enabled() and (x.requires_grad or (other is not None and other.requires_grad)):
            return _record((self, out, made, rows[2:], numbers, reduction), x, other)
        return out

    def _made(self, rows: Rows, numbers: tuple) -> tuple[Tensor, Tensor] | None:
        """What the fast body makes, where there is one, nobody watches torch's functions, and it knows all values."""
        if not is_plain(rows.x) or function_modes() or any(t is not None and type(t) not in PLAIN for t in rows[1:]):
            return None
        body = kernels.body_for(rows.x).passes
        return None if body is None else self._of(body, "")(rows, *numbers)

    def _of(self, body: Any, suffix: str) -> Any:
        """The body's own operation, or its gradient."""
        name = self._name if not self._like or hasattr(body, self._name) else self._like
        return getattr(body, name + suffix)

    def gradients(self, ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Those of x and of the second operand."""
        x, other, saved, *rest = ctx.saved_tensors
        rows = Rows(x, other, *rest)
        if is_grad_enabled() or not has_storage(grad) or not is_plain(grad):
            return self._by_formula(ctx, rows, grad)
        factor = 1 / max(saved.shape[:-1].numel(), 1) if ctx.reduction == "mean" else 1.0
        run = self._of(kernels.body_for(x).passes, "_backward")
        return run(rows, grad, saved, factor, ctx.needs_input_grad[1:3], *ctx.numbers)

    def _by_formula(self, ctx: Any, rows: Rows, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Through views of the operands, so that what one of them was made from is not followed here."""
        with torch.enable_grad():
            given = [t if t is None else t.view_as(t) for t in (rows.x, rows.other)]
            y = _reduced(self._formula(Rows(*given, *rows[2:]), *ctx.numbers), ctx.reduction)  # pyright: ignore
        needed = ctx.needs_input_grad[1:3]
        wanted: Any = [t for t, asked in zip(given, needed, strict=True) if asked]
        made = iter(torch.autograd.grad(y, wanted, grad, create_graph=is_grad_enabled()))
        return next(made) if needed[0] else None, next(made) if needed[1] else None


class _Recorded(torch.autograd.Function):
    """Hands on a number that is already made, with the gradient of its pass."""

    @staticmethod
    def forward(ctx: Any, what: tuple, x: Tensor, other: Tensor | None) -> Tensor:
        ctx.operation, out, made, rest, ctx.numbers, ctx.reduction = what
        ctx.save_for_backward(x, other, made[1], *rest)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        return (None, *ctx.operation.gradients(ctx, grads[0]))


_record = quick_apply(_Recorded, _Recorded.backward)


def _in_ordinary_dtypes(rows: Rows) -> Rows:
    """Operands in dtypes that every body reads, both in float64 if one is. What holds flags, integers or 8 bits is
    brought to float32."""
    x, other = rows.x, rows.other
    double = torch.float64 in (x.dtype, x.dtype if other is None else other.dtype)

    def ordinary(t: Tensor) -> Tensor:
        return t.double() if double else t if t.dtype in DTYPES else t.float()

    return rows._replace(x=ordinary(x), other=None if other is None else ordinary(other))


def _reduced(rows: Tensor, reduction: str) -> Tensor:
    """The numbers themselves, their sum, or their mean: 0 where there are none."""
    if reduction != "mean":
        return rows if reduction == "none" else rows.sum()
    if is_plain(rows):
        return rows.mean() if rows.numel() else rows.sum()
    return rows.sum() / torch.ones_like(rows).sum().clamp_min(1)  # a size may be known at run time only


entropy = Pass("entropy", pass_reference.entropy)
index_nll = Pass("index_nll", pass_reference.index_nll)
nll = Pass("nll", pass_reference.nll)
kl = Pass("kl", pass_reference.kl)
kl_with_slope = Pass("kl_with_slope", pass_reference.kl_with_slope, like="kl")
