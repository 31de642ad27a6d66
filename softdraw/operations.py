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


def _operation(
    forward: Callable, fake: Callable, vmap: Callable | None, autograd: tuple[Callable, Callable] | None
) -> Callable:
    """One callable from a typed body and its rules; ``autograd`` is (setup_context, backward) or None. What is called
    in backward passes only is never mapped: it needs no ``vmap``."""
    name = forward.__name__.lstrip("_")
    operator: Any = torch.library.custom_op(f"softdraw::{name}", forward, mutates_args=())
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
    function: Any = type(name, (torch.autograd.Function,), rules | _separate(forward, setup_context))
    quick = _quick(type(name, (torch.autograd.Function,), rules | _together(forward, setup_context)))

    def call(*arguments: Any) -> Tensor:
        x, tau, *_ = arguments
        if _plain(x):
            wanted = autograd is not None and (x.requires_grad or (type(tau) is not float and tau.requires_grad))
            return quick(*arguments) if wanted and torch.is_grad_enabled() else forward(*arguments)
        if _transformed() and not is_compiling():
            return function.apply(*arguments)
        return operator(*(_tensor(argument, x) for argument in arguments))

    return call


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
    logits: Tensor, tau: Tensor, seed: Tensor | None, rows: Tensor | None, mask: Tensor | None
) -> Tensor:
    return kernels.body(logits.device, logits.dtype).soft(logits, tau, seed, rows, mask)


def _soft_setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    _save(ctx, inputs[1], output)


def _soft_backward(ctx: Any, grad: Tensor) -> tuple:
    tau, y = _saved(ctx)
    if not _formula(ctx, grad):
        return gumbel_softmax_soft_backward(grad, y, tau), None, None, None, None
    dlogits, dtau = softmax_vjp(y, grad, tau)
    return dlogits, dtau if ctx.needs_input_grad[1] else None, None, None, None


def _gumbel_softmax_soft_backward(grad: Tensor, y: Tensor, tau: Tensor) -> Tensor:
    return kernels.body(y.device, y.dtype).soft_backward(y, grad, tau)


def _soft_vmap(info: Any, in_dims: tuple, logits: Tensor, tau: Tau, *rest: Tensor | None) -> tuple[Tensor, int]:
    logits, tau, seed, rows, mask = _batched(info, in_dims, logits, tau, *rest)
    return gumbel_softmax_soft(logits, tau, seed, rows, mask), 0


gumbel_softmax_soft = _operation(
    _gumbel_softmax_soft, lambda logits, *_: torch.empty_like(logits), _soft_vmap, (_soft_setup, _soft_backward)
)
gumbel_softmax_soft_backward = _operation(
    _gumbel_softmax_soft_backward, lambda grad, y, *_: torch.empty_like(y), None, None
)


# Hard: the gradient is that of the soft draw with the same noise, made again from the inputs.


def _gumbel_softmax_hard(
    logits: Tensor, tau: Tensor, seed: Tensor | None, rows: Tensor | None, mask: Tensor | None
) -> Tensor:
    return kernels.body(logits.device, logits.dtype).hard(logits, tau, seed, rows, mask)


def _hard_setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    logits, tau, *rest = inputs
    _save(ctx, tau, logits, *rest)


def _hard_backward(ctx: Any, grad: Tensor) -> tuple:
    tau, logits, *rest = _saved(ctx)
    if not _formula(ctx, grad):
        return gumbel_softmax_hard_backward(grad, logits, tau, *rest), None, None, None, None
    y = gumbel_softmax_soft(logits.to(compute_dtype(logits.dtype)), tau, *rest)
    dlogits, dtau = softmax_vjp(y, grad, tau)
    return dlogits.to(logits.dtype), dtau if ctx.needs_input_grad[1] else None, None, None, None


def _gumbel_softmax_hard_backward(
    grad: Tensor, logits: Tensor, tau: Tensor, seed: Tensor | None, rows: Tensor | None, mask: Tensor | None
) -> Tensor:
    return kernels.body(logits.device, logits.dtype).hard_backward(logits, grad, tau, seed, rows, mask)


def _hard_vmap(info: Any, in_dims: tuple, logits: Tensor, tau: Tau, *rest: Tensor | None) -> tuple[Tensor, int]:
    logits, tau, seed, rows, mask = _batched(info, in_dims, logits, tau, *rest)
    return gumbel_softmax_hard(logits, tau, seed, rows, mask), 0


gumbel_softmax_hard = _operation(
    _gumbel_softmax_hard, lambda logits, *_: torch.empty_like(logits), _hard_vmap, (_hard_setup, _hard_backward)
)
gumbel_softmax_hard_backward = _operation(
    _gumbel_softmax_hard_backward, lambda grad, logits, *_: torch.empty_like(logits), None, None
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


def _gumbel_max(logits: Tensor, seed: Tensor, rows: Tensor | None, mask: Tensor | None, samples: int) -> Tensor:
    return kernels.body(logits.device, logits.dtype).index(logits, seed, rows, mask, samples)


def _max_fake(logits: Tensor, seed: Tensor, rows: Tensor | None, mask: Tensor | None, samples: int) -> Tensor:
    return logits.new_empty((samples, *logits.shape[:-1]), dtype=torch.int64)


def _max_vmap(
    info: Any, in_dims: tuple, logits: Tensor, seed: Tensor, rows: Tensor | None, mask: Tensor | None, samples: int
) -> tuple[Tensor, int]:
    dims = (in_dims[0], None, *in_dims[1:4])
    logits, _, seed, rows, mask = _batched(info, dims, logits, None, seed, rows, mask)
    return gumbel_max(logits, seed, rows, mask, samples), 1


gumbel_max = _operation(_gumbel_max, _max_fake, _max_vmap, None)


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


gumbel_noise = _operation(_gumbel_noise, _noise_fake, _noise_vmap, None)


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
    rest = (_aligned(x, d, logits.dim()) for x, d in zip((tau, seed, rows, mask), in_dims[1:], strict=True))
    return logits, *rest


def _aligned(x: Tensor | None, dim: int | None, rank: int) -> Any:
    """``x`` with its mapped dimension (if any) in front and padded by ones to ``rank``, so that it broadcasts."""
    if x is None or dim is None:
        return x
    x = x.movedim(dim, 0)
    return x.reshape(x.shape[0], *[1] * (rank - x.dim()), *x.shape[1:])
