"""One set of rules for an operation (gradient, vmap, shapes), and a form of it for whatever looks on.

In eager code that is the body itself or, where something wants a gradient, a plain ``autograd.Function``, which costs a
few microseconds; under torch.func a ``Function`` that it can transform; and wherever something looks at the graph
(torch.compile, torch.export, fake tensors, any other dispatch mode) a ``torch.library`` operator: one opaque node.
Without noise there is nothing to hide from what looks on: it is given torch's own operations, ``noiseless``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, is_grad_enabled
from torch._C import _are_functorch_transforms_active, _get_tracing_state, _has_storage, _len_torch_dispatch_stack
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from softdraw.arguments import Tau, compute_dtype
from softdraw.distributed import PLAIN, is_dtensor, on_local_rows


class Operation:
    """A typed body with its rules. What is called in backward passes only is never mapped: it needs no ``vmap``."""

    def __init__(
        self,
        body: Callable,
        fake: Callable,
        vmap: Callable | None = None,
        autograd: tuple[Callable, Callable] | None = None,  # setup_context, backward
        saves_seed: bool = False,
        noiseless: Callable | None = None,  # of (x, tau, mask)
    ) -> None:
        name = body.__name__.lstrip("_")
        operator: Any = torch.library.custom_op(f"softdraw::{name}", body, mutates_args=())
        operator.register_fake(fake)
        rules = {}
        if vmap is not None:
            operator.register_vmap(vmap)
            rules["vmap"] = staticmethod(vmap)
        setup_context, backward = autograd or (_no_gradient, None)
        if backward is not None:
            operator.register_autograd(backward, setup_context=setup_context)
            rules["backward"] = staticmethod(backward)
            self._recorded = _recorded(name, body, setup_context, backward), saves_seed
        function: Any = type(name, (torch.autograd.Function,), rules | _separate(body, setup_context))
        self._bare, self._transformed, self._seen = (
            (body, False),
            (self._call_function, True),
            (self._call_operator, True),
        )
        self._differentiable, self._operator, self._function = backward is not None, operator, function.apply
        self._noiseless: Any = noiseless

    def form(self, x: Any, tau: Any) -> tuple[Callable, bool]:
        """What to call on ``x``: the body where nothing looks on, else the form that what looks on can see; and whether
        the seed outlives the call."""
        if _plain(x):
            wanted = self._differentiable and (x.requires_grad or (type(tau) is not float and tau.requires_grad))
            return self._recorded if wanted and is_grad_enabled() else self._bare
        return self._transformed if transformed() and not is_compiling() else self._seen

    def in_backward(self, ctx: Any, grad: Tensor) -> Callable | None:
        """What to call in a backward pass of ``grad``. None where that is to be the formula in torch's own operations:
        where it is differentiated again or mapped (by torch.func, or by autograd itself, whose batches of gradients
        have no storage), or tau wants its part."""
        if is_grad_enabled() or (ctx.tau is None and ctx.needs_input_grad[1]) or not _has_storage(grad):
            return None
        return self._bare[0] if _plain(grad) else None if transformed() else self

    def __call__(self, x: Any, tau: Any, *rest: Any) -> Tensor:
        return self.form(x, tau)[0](x, tau, *rest)

    def _call_function(self, x: Any, *rest: Any) -> Tensor:
        return self._function(x, *rest) if self._noisy(rest) else self._noiseless(x, rest[0], rest[3])

    def _call_operator(self, x: Any, *rest: Any) -> Tensor:
        if is_dtensor(x):
            return on_local_rows(self, x, rest, index=not self._differentiable)
        if not self._noisy(rest):
            return self._noiseless(x, rest[0], rest[3])
        return self._operator(x, *(_tensor(argument, x) for argument in rest))

    def _noisy(self, rest: tuple) -> bool:
        """Whether a call draws, by its arguments after the logits: tau, seed, rows, mask, ..."""
        return self._noiseless is None or rest[1] is not None


def _separate(forward: Callable, setup_context: Callable) -> dict[str, Any]:
    """What torch.func needs of an ``autograd.Function``; every call binds the signature anew, some 50 microseconds."""
    return {"forward": staticmethod(forward), "setup_context": staticmethod(setup_context)}


def _recorded(name: str, body: Callable, setup_context: Callable, backward: Callable) -> Callable:
    """The older form, which is quick. ``apply`` goes without the care for torch.func, which takes a microsecond and has
    no say here; that of its backward nodes without the search for a ``vjp`` under another name, half a microsecond."""

    def forward(ctx: Any, x: Tensor, tau: Tau, seed: Any, rows: Any, mask: Any, col_start: int) -> Tensor:
        output = body(x, tau, seed, rows, mask, col_start)
        setup_context(ctx, (x, tau, seed, rows, mask, col_start), output)
        return output

    rules = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    function: Any = type(name, (torch.autograd.Function,), rules)
    node = getattr(function, "_backward_cls", None)
    if node is not None:
        node.apply = backward
    inherited: Any = super(torch.autograd.Function, function)
    return inherited.apply


def _no_gradient(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.mark_non_differentiable(output)


def _tensor(argument: Any, x: Tensor) -> Any:
    """A tau that is a number as the operator takes it, a tensor."""
    return (
        argument
        if type(argument) is not float
        else torch.full((), argument, dtype=compute_dtype(x.dtype), device=x.device)
    )


def _plain(x: Tensor) -> bool:
    """Whether only autograd must see a call on ``x``: no tracer, tensor subclass, dispatch mode or torch.func."""
    return (
        type(x) in PLAIN
        and not is_compiling()
        and _get_tracing_state() is None
        and not _len_torch_dispatch_stack()
        and not _are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )


def transformed() -> bool:
    """Whether torch.func or forward-mode differentiation must see the call; it comes before what else may, for it
    knows no gradient of operators."""
    return _are_functorch_transforms_active() or forward_ad._current_level >= 0
