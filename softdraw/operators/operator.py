"""One set of rules for an operation (shapes, vmap, gradient), and the form of it that each kind of call needs.

In eager code an operation is its body or, where a gradient is wanted, a plain ``autograd.Function``, which costs a few
microseconds. Under torch.func it is a ``Function`` that torch.func can transform. Wherever something reads the graph
(torch.compile, torch.export, fake tensors, other dispatch modes) it is a ``torch.library`` operator: one opaque node.
Without noise there is nothing to hide: such a graph gets torch's own operations, ``noiseless``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, is_grad_enabled
from torch.compiler import is_compiling, is_dynamo_compiling

from softdraw.arguments import number_tensor
from softdraw.private_torch import forward_mode, has_storage, quick_apply, transformed
from softdraw.seeds import keep_spare, seed_for, spare_seed
from softdraw.tensors import check_whole_rows, is_dtensor, is_plain, on_local_rows

_exporting = getattr(torch.compiler, "is_exporting", lambda: True)  # where it cannot be told, a graph may be exported
_LIBRARY = torch.library.Library("softdraw", "FRAGMENT")
Form = tuple[Callable[..., Tensor], bool]  # what to call, and whether the seed is needed after the call


def operator(name: str, schema: str, body: Callable, fake: Callable) -> Any:
    """An operator of torch.library that knows no gradient of its own: whoever calls it in a graph brings one along.

    ``torch.library.custom_op`` would put a layer for autograd around it, which takes 20 microseconds a call.
    """
    _LIBRARY.define(f"{name}{schema}")
    _LIBRARY.impl(name, body, "CompositeExplicitAutograd")
    torch.library.register_fake(f"softdraw::{name}", fake, lib=_LIBRARY)
    return getattr(torch.ops.softdraw, name).default


class Operation:
    """A body and its rules, without a gradient.

    ``schema`` names the inputs as torch.library has them. ``body``, ``fake`` and ``vmap`` take them in that order. The
    first is a tensor, whose kind decides the form of a call.
    """

    def __init__(self, name: str, schema: str, body: Callable, fake: Callable, vmap: Callable | None = None) -> None:
        self._operator, self.body = self._registered(name, schema, body, fake), body
        if vmap is not None:
            torch.library.register_vmap(f"softdraw::{name}", vmap, lib=_LIBRARY)
        self._bare: Form = body, False
        self._seen: Form = self._call_operator, True
        self._function = _separate(name, body, vmap, _no_gradient).apply
        self._transformed: Form = self._call_function, True

    def _registered(self, name: str, schema: str, body: Callable, fake: Callable) -> Any:
        return operator(name, schema, body, fake)

    def form(self, x: Any, tau: Any = None) -> Form:
        """How to call the operation on ``x``."""
        return self._bare if is_plain(x) else self._form_for_observers(x)

    def _form_for_observers(self, x: Any) -> Form:
        if is_dtensor(x):
            check_whole_rows(x)
        return self._transformed if not is_compiling() and under_torch_func() else self._seen

    def in_backward(self, grad: Tensor) -> Callable | None:
        """How to call the operation in a backward pass of ``grad``. None where the formula in torch's own operations is
        needed: where it is differentiated again, or mapped by torch.func or by autograd itself, whose batches of
        gradients have no storage."""
        if is_grad_enabled() or not has_storage(grad):
            return None
        return self.body if is_plain(grad) else None if under_torch_func() else self

    def __call__(self, *inputs: Any) -> Tensor:
        return self.form(*inputs[:2])[0](*inputs)

    def seeded(self, seed: int | Tensor | None, generator: Any, x: Tensor, *rest: Any) -> Tensor:
        """A call whose second input, the seed, is given or drawn here.

        Everything else has been checked by then, so that a refused call draws no seed.
        """
        run, needs_seed_later = self.form(x)
        if seed is not None or generator is not None or needs_seed_later or not x.is_cpu:
            return run(x, seed_for(x, seed, generator), *rest)
        key = spare_seed()
        y = run(x, key, *rest)
        keep_spare(key)
        return y

    def _call_function(self, *inputs: Any) -> Tensor:
        return self._function(*inputs)

    def _call_operator(self, *inputs: Any) -> Tensor:
        if is_dtensor(inputs[0]):
            return on_local_rows(self, inputs[0], inputs[1:], index=not isinstance(self, Differentiable))
        # The operator takes a tau that is a number as a tensor.
        return self._operator(*(number_tensor(x, inputs[0]) if type(x) is float else x for x in inputs))


class Differentiable(Operation):
    """An operation of (x, tau, ...), with a gradient for x and tau by ``setup_context`` and ``backward``."""

    def __init__(
        self,
        name: str,
        schema: str,
        body: Callable,
        fake: Callable,
        vmap: Callable,
        autograd: tuple[Callable, Callable],  # setup_context, backward
        saves_seed: bool,
        noiseless: Callable,  # of (x, tau, mask)
    ) -> None:
        super().__init__(name, schema, body, fake, vmap)
        self._noiseless = noiseless
        setup_context, backward = autograd
        self._operator.register_autograd(backward, setup_context=setup_context)
        self._function = _separate(name, body, vmap, setup_context, backward).apply
        self._record = quick_apply(_combined(name, body, setup_context, backward), backward)
        self._recorded: Form = self._call_recorded, saves_seed

    def _registered(self, name: str, schema: str, body: Callable, fake: Callable) -> Any:
        made = torch.library.custom_op(f"softdraw::{name}", body, mutates_args=(), schema=schema)
        made.register_fake(fake)
        return made

    def form(self, x: Any, tau: Any = None) -> Form:
        """How to call the operation on ``x`` and tau."""
        if not is_plain(x):
            return self._form_for_observers(x)
        wanted = x.requires_grad or (type(tau) is not float and tau.requires_grad)
        return self._recorded if wanted and is_grad_enabled() else self._bare

    def seeded(  # pyright: ignore[reportIncompatibleMethodOverride]  (named inputs: unpacking takes time)
        self, seed: int | Tensor | None, generator: Any, x: Tensor, tau: Any, rows: Any, mask: Any, col_start: int
    ) -> Tensor:
        """As for every operation, but the seed comes after tau."""
        run, needs_seed_later = self.form(x, tau)
        if seed is not None or generator is not None or needs_seed_later or not x.is_cpu:
            return run(x, tau, seed_for(x, seed, generator), rows, mask, col_start)
        key = spare_seed()
        y = run(x, tau, key, rows, mask, col_start)
        keep_spare(key)
        return y

    def _call_recorded(self, x: Any, tau: Any, *rest: Any) -> Tensor:
        return self._record(x, tau, rest)

    def _call_function(self, *inputs: Any) -> Tensor:
        x, tau, seed, _, mask, _ = inputs
        return self._noiseless(x, tau, mask) if seed is None else self._function(*inputs)

    def _call_operator(self, *inputs: Any) -> Tensor:
        x, tau, seed, _, mask, _ = inputs
        if seed is None and not is_dtensor(x):
            return self._noiseless(x, tau, mask)
        return super()._call_operator(*inputs)


def _separate(
    name: str, body: Callable, vmap: Callable | None, setup_context: Callable, backward: Callable | None = None
) -> Any:
    """A ``Function`` as torch.func needs it. Every call binds the signature anew, which takes some 50 microseconds."""
    rules = {"forward": body, "setup_context": setup_context, "vmap": vmap, "backward": backward}
    return type(name, (torch.autograd.Function,), {k: staticmethod(f) for k, f in rules.items() if f is not None})


def _combined(name: str, body: Callable, setup_context: Callable, backward: Callable) -> Any:
    """A ``Function`` whose forward pass has the context, which is quick.

    What has no gradient comes in one tuple, for every input of a ``Function`` takes time. The backward pass returns
    None for each of them, as autograd allows: it drops what follows the last input if it is None.
    """

    def forward(ctx: Any, x: Any, tau: Any, rest: tuple) -> Tensor:
        inputs = (x, tau, *rest)
        output = body(*inputs)
        setup_context(ctx, inputs, output)
        return output

    return type(
        name, (torch.autograd.Function,), {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    )


def _no_gradient(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.mark_non_differentiable(output)


def in_graph() -> bool:
    """Whether torch.compile makes a graph here that keeps the gradient of a ``Function``: not for torch.export, nor
    under torch.func."""
    return is_dynamo_compiling() and not _exporting() and not transformed()


def under_torch_func() -> bool:
    """Whether torch.func or forward-mode differentiation must see the call. It goes before any dispatch mode, since it
    does not know the gradients of operators."""
    return transformed() or forward_mode()
