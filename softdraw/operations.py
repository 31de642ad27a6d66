"""The operations as autograd, torch.func, torch.compile and export see them; the numbers come from ``kernels``.

Each operation has one set of rules (gradient, vmap, shapes) and two forms: a plain ``autograd.Function`` for eager
calls, which costs a few microseconds and is left out where nothing wants a gradient, and a ``torch.library`` operator
wherever something looks at the graph (torch.compile, torch.export, fake tensors, any other dispatch mode), which sees
one opaque, functional node.
The noise is made again in the backward pass from the seed and the row ids; it is never stored. Nor is the seed ever
drawn here: it is an input, so a recomputed or replayed graph makes the same draw.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active, _get_tracing_state, _has_storage, _len_torch_dispatch_stack
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from softdraw import kernels
from softdraw.arguments import Tau, compute_dtype, row_ids
from softdraw.kernels.reference import softmax_vjp

_PLAIN = (Tensor, torch.nn.Parameter)


class Operation:
    """A typed body with its rules. What is called in backward passes only is never mapped: it needs no ``vmap``."""

    def __init__(
        self,
        body: Callable,
        fake: Callable,
        vmap: Callable | None = None,
        autograd: tuple[Callable, Callable] | None = None,  # setup_context, backward
        saves_seed: bool = False,
    ) -> None:
        name = body.__name__.lstrip("_")
        operator: Any = torch.library.custom_op(f"softdraw::{name}", body, mutates_args=())
        operator.register_fake(fake)
        rules = {}
        if vmap is not None:
            operator.register_vmap(vmap)
            rules["vmap"] = staticmethod(vmap)
        if autograd is None:
            setup_context = _no_gradient
        else:
            setup_context, backward = autograd
            operator.register_autograd(backward, setup_context=setup_context)
            rules["backward"] = staticmethod(backward)
        function: Any = type(name, (torch.autograd.Function,), rules | _separate(body, setup_context))
        self._differentiable = autograd is not None
        recorded = _quick(type(name, (torch.autograd.Function,), rules | _together(body, setup_context)))
        self._bare, self._recorded = (body, False), (recorded, saves_seed)
        self._transformed, self._seen = (function.apply, True), (self._call_operator, True)
        self._operator = operator

    def form(self, x: Any, tau: Any) -> tuple[Callable, bool]:
        """What to call on ``x``: the body where nothing looks on, else the form that what looks on can see; and whether
        the seed outlives the call."""
        if _plain(x):
            wanted = self._differentiable and (x.requires_grad or (type(tau) is not float and tau.requires_grad))
            return self._recorded if wanted and torch.is_grad_enabled() else self._bare
        return self._transformed if _transformed() and not is_compiling() else self._seen

    def __call__(self, x: Any, tau: Any, *rest: Any) -> Tensor:
        return self.form(x, tau)[0](x, tau, *rest)

    def _call_operator(self, x: Any, *rest: Any) -> Tensor:
        return self._operator(x, *(_tensor(argument, x) for argument in rest))


def _separate(forward: Callable, setup_context: Callable) -> dict[str, Any]:
    """What torch.func needs of an ``autograd.Function``; every call binds the signature anew, some 50 microseconds."""
    return {"forward": staticmethod(forward), "setup_context": staticmethod(setup_context)}


def _together(forward: Callable, setup_context: Callable) -> dict[str, Any]:
    """The older form, which is quick."""

    def run(ctx: Any, *inputs: Any) -> Tensor:
        output = forward(*inputs)
        setup_context(ctx, inputs, output)
        return output

    return {"forward": staticmethod(run)}


def _quick(function: Any) -> Callable:
    """``function.apply`` without its care for torch.func, which takes a microsecond and has no say here."""
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
        type(x) in _PLAIN
        and not is_compiling()
        and _get_tracing_state() is None
        and not _len_torch_dispatch_stack()
        and not _are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )


def _transformed() -> bool:
    """Whether torch.func or forward-mode differentiation must see the call; it comes before what else may, for it
    knows no gradient of operators."""
    return _are_functorch_transforms_active() or forward_ad._current_level >= 0


def _formula(ctx: Any, grad: Tensor) -> bool:
    """Whether a backward pass is to be the formula in torch's own operations: where it is differentiated again or
    mapped (by torch.func, or by autograd itself, whose batches of gradients have no storage), or tau wants its part."""
    return torch.is_grad_enabled() or _transformed() or ctx.needs_input_grad[1] or not _has_storage(grad)


# Soft: y is saved, being the output it costs nothing; the logits are not kept.


def _gumbel_softmax_soft(
    logits: Tensor, tau: Tensor, seed: Tensor | None, rows: Tensor | None, mask: Tensor | None, col_start: int
) -> Tensor:
    return kernels.body_for(logits).soft(logits, tau, seed, rows, mask, col_start)


def _soft_setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    _save(ctx, inputs[1], output)


def _soft_backward(ctx: Any, grad: Tensor) -> tuple:
    tau, y = _saved(ctx)
    if not _formula(ctx, grad):
        return gumbel_softmax_soft_backward(grad, y, tau), None, None, None, None, None
    dlogits, dtau = softmax_vjp(y, grad, tau)
    return dlogits, dtau if ctx.needs_input_grad[1] else None, None, None, None, None


def _gumbel_softmax_soft_backward(grad: Tensor, y: Tensor, tau: Tensor) -> Tensor:
    return kernels.body_for(y).soft_backward(y, grad, tau)


def _soft_vmap(info: Any, in_dims: tuple, *inputs: Any) -> tuple[Tensor, int]:
    return gumbel_softmax_soft(*_batched(info, in_dims, *inputs[:-1]), inputs[-1]), 0


gumbel_softmax_soft = Operation(
    _gumbel_softmax_soft, lambda logits, *_: torch.empty_like(logits), _soft_vmap, (_soft_setup, _soft_backward)
)
gumbel_softmax_soft_backward = Operation(
    _gumbel_softmax_soft_backward, lambda grad, y, *_: torch.empty_like(y)
)


# Hard: the gradient is that of the soft draw with the same noise, made again from the inputs.


def _gumbel_softmax_hard(
    logits: Tensor, tau: Tensor, seed: Tensor | None, rows: Tensor | None, mask: Tensor | None, col_start: int
) -> Tensor:
    return kernels.body_for(logits).hard(logits, tau, seed, rows, mask, col_start)


def _hard_setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    logits, tau, *rest, ctx.col_start = inputs
    _save(ctx, tau, logits, *rest)


def _hard_backward(ctx: Any, grad: Tensor) -> tuple:
    tau, logits, *rest = _saved(ctx)
    if not _formula(ctx, grad):
        return gumbel_softmax_hard_backward(grad, logits, tau, *rest, ctx.col_start), None, None, None, None, None
    y = gumbel_softmax_soft(logits.to(compute_dtype(logits.dtype)), tau, *rest, ctx.col_start)
    dlogits, dtau = softmax_vjp(y, grad, tau)
    return dlogits.to(logits.dtype), dtau if ctx.needs_input_grad[1] else None, None, None, None, None


def _gumbel_softmax_hard_backward(
    grad: Tensor,
    logits: Tensor,
    tau: Tensor,
    seed: Tensor | None,
    rows: Tensor | None,
    mask: Tensor | None,
    col_start: int,
) -> Tensor:
    return kernels.body_for(logits).hard_backward(logits, grad, tau, seed, rows, mask, col_start)


def _hard_vmap(info: Any, in_dims: tuple, *inputs: Any) -> tuple[Tensor, int]:
    return gumbel_softmax_hard(*_batched(info, in_dims, *inputs[:-1]), inputs[-1]), 0


gumbel_softmax_hard = Operation(
    _gumbel_softmax_hard,
    lambda logits, *_: torch.empty_like(logits),
    _hard_vmap,
    (_hard_setup, _hard_backward),
    saves_seed=True,
)
gumbel_softmax_hard_backward = Operation(
    _gumbel_softmax_hard_backward, lambda grad, logits, *_: torch.empty_like(logits)
)


def _save(ctx: Any, tau: Tau, *tensors: Tensor | None) -> None:
    if type(tau) is float:
        ctx.tau = tau
        ctx.save_for_backward(*tensors)
    else:
        ctx.tau = None
        ctx.save_for_backward(*tensors, tau)


def _saved(ctx: Any) -> tuple:
    """tau, and the other tensors that were saved."""
    saved = ctx.saved_tensors
    return (saved[-1], *saved[:-1]) if ctx.tau is None else (ctx.tau, *saved)


# Index and noise: no gradient.


def _gumbel_max(
    logits: Tensor, seed: Tensor, rows: Tensor | None, mask: Tensor | None, samples: int, col_start: int
) -> Tensor:
    return kernels.body_for(logits).index(logits, seed, rows, mask, samples, col_start)


def _max_fake(logits: Tensor, seed: Tensor, rows: Tensor | None, mask: Tensor | None, samples: int, *_: int) -> Tensor:
    return logits.new_empty((samples, *logits.shape[:-1]), dtype=torch.int64)


def _max_vmap(
    info: Any, in_dims: tuple, logits: Tensor, seed: Tensor, rows: Tensor | None, mask: Tensor | None, *numbers: int
) -> tuple[Tensor, int]:
    dims = (in_dims[0], None, *in_dims[1:4])
    logits, _, seed, rows, mask = _batched(info, dims, logits, None, seed, rows, mask)
    return gumbel_max(logits, seed, rows, mask, *numbers), 1


gumbel_max = Operation(_gumbel_max, _max_fake, _max_vmap)


def _gumbel_noise(seed: Tensor, rows: Tensor, stream: Tensor, cols: int, col_start: int, dtype: torch.dtype) -> Tensor:
    return kernels.body(seed.device, dtype).gumbel(seed, rows, cols, col_start, stream, dtype)


def _noise_fake(seed: Tensor, rows: Tensor, stream: Tensor, cols: int, col_start: int, dtype: torch.dtype) -> Tensor:
    return rows.new_empty((*torch.broadcast_shapes(seed.shape, rows.shape)[:-1], cols), dtype=dtype)


def _noise_vmap(
    info: Any, in_dims: tuple, seed: Tensor, rows: Tensor, stream: Tensor, cols: int, col_start: int, dtype: torch.dtype
) -> tuple[Tensor, int]:
    rank = 1 + max(x.dim() - (d is not None) for x, d in zip((seed, rows, stream), in_dims[:3], strict=True))
    seed, rows, stream = (_aligned(x, d, rank) for x, d in zip((seed, rows, stream), in_dims[:3], strict=True))
    return gumbel_noise(seed, rows.expand(info.batch_size, *rows.shape[-rank + 1 :]), stream, cols, col_start, dtype), 0


gumbel_noise = Operation(_gumbel_noise, _noise_fake, _noise_vmap)


def _batched(
    info: Any,
    in_dims: tuple,
    logits: Tensor,
    tau: Any,
    seed: Tensor | None,
    rows: Tensor | None,
    mask: Tensor | None,
) -> tuple[Tensor, Any, Any, Any, Any]:
    """Arguments with the mapped dimension in front, so that one call serves the whole map.

    Each example keeps the row ids that it would have alone: the default ids do not run on over the mapped dimension.
    Whether examples share their noise is thus decided by the seed, mapped or not: vmap's own two random modes.
    """
    mapped = in_dims[0] is not None
    logits = logits.movedim(in_dims[0], 0) if mapped else logits.expand(info.batch_size, *logits.shape)
    if rows is None:
        rows = row_ids(logits.shape[1:-1], logits.device)
    rest = (_aligned(x, d, logits.dim()) for x, d in zip((tau, seed, rows, mask), in_dims[1:5], strict=True))
    return logits, *rest


def _aligned(x: Tensor | None, dim: int | None, rank: int) -> Any:
    """``x`` with its mapped dimension (if any) in front and padded by ones to ``rank``, so that it broadcasts."""
    if x is None or dim is None:
        return x
    x = x.movedim(dim, 0)
    return x.reshape(x.shape[0], *[1] * (rank - x.dim()), *x.shape[1:])
