"""Passes without noise as autograd sees them: a number for each row, or what these reduce to, from one pass over the
logits; and one more pass for the gradient.

In eager code a pass is the fast body of ``kernels``, with its gradient in a plain ``autograd.Function``. Where there is
none, where it does not know a value, and for everything else that inspects the operations (export, torch.func, forward
mode, function and dispatch modes, DTensors), the pass is its formula in torch's own operations (``pass_reference``),
which have every derivative. A gradient that is differentiated again is taken through it too. In a graph of
torch.compile a pass is one operator (``graph``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, is_grad_enabled

from softdraw import kernels
from softdraw.arguments import compute_dtype
from softdraw.kernels import pass_reference
from softdraw.kernels.native import STORAGE
from softdraw.kernels.pass_reference import Rows
from softdraw.operators import graph
from softdraw.private_torch import function_modes, has_storage, quick_apply
from softdraw.tensors import PLAIN, is_plain

DTYPES = {getattr(torch, name) for name in STORAGE}  # of logits and second operands, in every body


class Pass:
    """An operation of ``Rows`` and numbers."""

    def __init__(self, name: str, formula: Callable[..., Any]) -> None:
        self._name, self._formula, self._backward = name, formula, f"{name}_backward"
        graph.PASSES[name] = self

    def __call__(
        self, rows: Rows, *numbers: Any, reduction: str = "none", check: Callable[[], Any] | None = None
    ) -> Tensor:
        """A number for each row in the compute dtype, ``batch``; or their weighted ``"mean"`` (0 of none) or ``"sum"``.

        ``check`` raises an error for operands that are illegal. On the CPU a fast body looks at values itself. Where
        nothing may wait for a value, ``check`` asserts in the stream of the device, beside a body or a formula.
        """
        x, other, weight = rows[0], rows[1], rows[6]
        if weight is not None and weight.requires_grad and is_grad_enabled():
            return self._of_learned_weights(rows, numbers, reduction, check)
        if other is not None or x.dtype not in DTYPES:
            rows = _in_ordinary_dtypes(rows)
            x, other = rows[0], rows[1]
        if check is not None and not x.is_cpu:
            check()
            check = None
        if is_grad_enabled() and (x.requires_grad or (other is not None and other.requires_grad)):
            if (body := self._body(rows)) is not None:
                y = _record(x, other, (self, body, rows, reduction, numbers))
                if y is not None:
                    return y
        elif (body := self._body(rows)) is not None:
            made = self.made(body, rows, reduction, numbers)
            if made is not None:
                return made[0]
        if check is not None:
            check()
        if graph.takes(*rows):
            return graph.rows_pass(self._name, rows, numbers, reduction)
        return self.value(rows, numbers, reduction)

    def _of_learned_weights(
        self, rows: Rows, numbers: tuple, reduction: str, check: Callable[[], Any] | None
    ) -> Tensor:
        """By the pass, reduced by the formula."""
        each = self(rows._replace(weight=None), *numbers, check=check)
        return pass_reference.reduced(each, rows.keep, rows.weight, reduction)

    def value(self, rows: Rows, numbers: tuple, reduction: str) -> Tensor:
        """By the formula."""
        return pass_reference.reduced(self._formula(rows, *numbers), rows.keep, rows.weight, reduction)

    def _body(self, rows: Rows) -> Any:
        """The fast body, where there is one and no mode has to see torch's functions."""
        if function_modes() or not is_plain(rows[0]):
            return None
        for t in rows[1:]:
            if t is not None and type(t) not in PLAIN:
                return None
        return kernels.body_for(rows[0]).passes

    def made(self, body: Any, rows: Rows, reduction: str, numbers: tuple) -> tuple[Tensor, Tensor] | None:
        """What the fast body makes, if it has the operation and knows all values."""
        run = getattr(body, self._name, None)
        return None if run is None else run(rows, reduction, *numbers)

    def gradients(self, ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Those of x and of the second operand."""
        saved, *rest = ctx.saved_tensors
        rows, (_, body, reduction, numbers) = tuple.__new__(Rows, rest), ctx.what
        if is_grad_enabled() or not has_storage(grad) or not is_plain(grad):
            return (*self.by_formula(rows, grad, numbers, reduction, ctx.needs_input_grad), None)
        return (*self.by_body(body, rows, grad, saved, reduction, ctx.needs_input_grad, numbers), None)

    def by_body(
        self, body: Any, rows: Rows, grad: Tensor, saved: Tensor, reduction: str, wanted: tuple, numbers: tuple
    ) -> tuple[Tensor, Tensor | None]:
        """Both gradients by the fast body."""
        return getattr(body, self._backward)(rows, grad, saved, reduction, wanted, *numbers)

    def by_formula(
        self, rows: Rows, grad: Tensor, numbers: tuple, reduction: str, needed: tuple
    ) -> tuple[Tensor | None, Tensor | None]:
        """Through views of the operands, so that what one of them was made from is not followed here."""
        with torch.enable_grad():
            given = [t if t is None else t.view_as(t) for t in (rows.x, rows.other)]
            y = self.value(Rows(*given, *rows[2:]), numbers, reduction)  # pyright: ignore
        wanted: Any = [t for t, asked in zip(given, needed, strict=False) if asked]
        made = iter(torch.autograd.grad(y, wanted, grad, create_graph=is_grad_enabled()))
        return next(made) if needed[0] else None, next(made) if needed[1] else None


class Usage(Pass):
    """A pass whose formula gives a number for each group of rows, and the sum of its weights."""

    def _of_learned_weights(
        self, rows: Rows, numbers: tuple, reduction: str, check: Callable[[], Any] | None
    ) -> Tensor:
        return self.value(rows, numbers, reduction)

    def value(self, rows: Rows, numbers: tuple, reduction: str) -> Tensor:
        loss, total = self._formula(rows, *numbers)
        return pass_reference.reduced(loss, total != 0, None, reduction)


class _Recorded(torch.autograd.Function):
    """The fast body of a pass with its gradient; None where it does not know a value."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, other: Tensor | None, what: tuple) -> Tensor | None:
        operation, body, rows, reduction, numbers = what
        made = operation.made(body, rows, reduction, numbers)
        if made is None:
            return None
        ctx.what = operation, body, reduction, numbers
        ctx.save_for_backward(made[1], *rows)
        return made[0]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return ctx.what[0].gradients(ctx, grads[0])


_record = quick_apply(_Recorded, _Recorded.backward)


def _in_ordinary_dtypes(rows: Rows) -> Rows:
    """Operands in dtypes that every body reads, both in float64 if one is. What holds flags, integers or 8 bits is
    brought to float32."""
    x, other = rows.x, rows.other
    kinds = (x.dtype,) if other is None else (x.dtype, other.dtype)
    double = torch.float64 in kinds
    if double or not DTYPES.issuperset(kinds):
        x = x.double() if double else _ordinary(x)
        other = other if other is None else other.double() if double else _ordinary(other)
        weight = None if rows.weight is None else rows.weight.to(compute_dtype(x.dtype))
        return rows._replace(x=x, other=other, weight=weight)
    return rows


def _ordinary(t: Tensor) -> Tensor:
    return t if t.dtype in DTYPES else t.float()


entropy = Pass("entropy", pass_reference.entropy)
index_nll = Pass("index_nll", pass_reference.index_nll)
nll = Pass("nll", pass_reference.nll)
kl = Pass("kl", pass_reference.kl)
kl_with_slope = Pass("kl_with_slope", pass_reference.kl_with_slope)
usage = Usage("usage", pass_reference.usage)
