"""The draws as autograd, torch.func, torch.compile and export see them; the numbers come from ``kernels``.

The noise is made again in the backward pass from the seed and the row ids; it is never stored. The operations draw no
seed themselves: it is an input, so a recomputed or replayed graph makes the same draw.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softdraw import kernels
from softdraw.arguments import Draw, Tau, compute_dtype, row_ids
from softdraw.kernels.reference import relaxed_vjp
from softdraw.operators import noiseless
from softdraw.operators.operator import Differentiable, Operation
from softdraw.private_torch import has_storage

_DRAW = "Tensor logits, Tensor tau, Tensor? seed, Tensor? rows, Tensor? mask, SymInt col_start"  # the fields of Draw


def _like_logits(logits: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(logits)


# Soft: y is saved, which costs nothing because it is the output; the logits are not kept.


# A body takes the fields of a Draw in a plain tuple: to make a Draw takes time, and a small draw takes microseconds.


def _soft(*inputs: Any) -> Tensor:
    return kernels.body_for(inputs[0]).soft(inputs)


def _soft_setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    _save(ctx, inputs[1], output)


def _soft_backward(ctx: Any, grad: Tensor) -> tuple:
    (y,), tau = _saved(ctx)
    run = None if _tau_learns(ctx) else gumbel_softmax_soft_backward.in_backward(grad)
    if run is not None:
        return run(grad, y, tau), None, None, None, None, None
    dlogits, dtau = relaxed_vjp(y, grad, tau)
    return dlogits, dtau if ctx.needs_input_grad[1] else None, None, None, None, None


def _soft_vmap(info: Any, in_dims: tuple, *inputs: Any) -> tuple[Tensor, int]:
    return gumbel_softmax_soft(*batched(info, in_dims, Draw(*inputs))), 0


gumbel_softmax_soft = Differentiable(
    "gumbel_softmax_soft",
    f"({_DRAW}) -> Tensor",
    _soft,
    _like_logits,
    _soft_vmap,
    (_soft_setup, _soft_backward),
    saves_seed=False,
    noiseless=noiseless.soft,
)
gumbel_softmax_soft_backward = Operation(
    "gumbel_softmax_soft_backward",
    "(Tensor grad, Tensor y, Tensor tau) -> Tensor",
    lambda grad, y, tau: kernels.body_for(y).soft_backward(y, grad, tau),
    lambda grad, y, tau: torch.empty_like(y),
)


# Hard: the gradient is that of the soft draw with the same noise, made again from the inputs.


def _hard(*inputs: Any) -> Tensor:
    return kernels.body_for(inputs[0]).hard(inputs)


def _hard_setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    logits, tau, *rest, ctx.col_start = inputs
    _save(ctx, tau, logits, *rest)


def _hard_backward(ctx: Any, grad: Tensor) -> tuple:
    (logits, *rest), tau = _saved(ctx)
    run = None if _tau_learns(ctx) else gumbel_softmax_hard_backward.in_backward(grad)
    if run is not None:
        return run(grad, logits, tau, *rest, ctx.col_start), None, None, None, None, None
    # What torch.func saved are wrappers, which may have outlived their transform: a copy is the tensor itself.
    rest = (x if x is None or has_storage(x) else x.clone() for x in rest)
    y = gumbel_softmax_soft(logits.to(compute_dtype(logits.dtype)), tau, *rest, ctx.col_start)
    dlogits, dtau = relaxed_vjp(y, grad, tau)
    return dlogits.to(logits.dtype), dtau if ctx.needs_input_grad[1] else None, None, None, None, None


def _hard_gradient(grad: Tensor, *inputs: Any) -> Tensor:
    return kernels.body_for(inputs[0]).hard_backward(inputs, grad)


def _hard_vmap(info: Any, in_dims: tuple, *inputs: Any) -> tuple[Tensor, int]:
    return gumbel_softmax_hard(*batched(info, in_dims, Draw(*inputs))), 0


gumbel_softmax_hard = Differentiable(
    "gumbel_softmax_hard",
    f"({_DRAW}) -> Tensor",
    _hard,
    _like_logits,
    _hard_vmap,
    (_hard_setup, _hard_backward),
    saves_seed=True,
    noiseless=noiseless.hard,
)
gumbel_softmax_hard_backward = Operation(
    "gumbel_softmax_hard_backward",
    f"(Tensor grad, {_DRAW}) -> Tensor",
    _hard_gradient,
    lambda grad, logits, *rest: torch.empty_like(logits),
)


def _save(ctx: Any, tau: Tau, *tensors: Tensor | None) -> None:
    if type(tau) is float:
        ctx.tau = tau
        ctx.save_for_backward(*tensors)
    else:
        ctx.tau = None
        ctx.save_for_backward(*tensors, tau)


def _saved(ctx: Any) -> tuple[tuple, Tau]:
    """The tensors that were saved, and tau."""
    saved, tau = ctx.saved_tensors, ctx.tau
    return (saved[:-1], saved[-1]) if tau is None else (saved, tau)


def _tau_learns(ctx: Any) -> bool:
    return ctx.tau is None and ctx.needs_input_grad[1]


# Index and noise: no gradient.


def _index(
    logits: Tensor, seed: Tensor, rows: Tensor | None, mask: Tensor | None, samples: int, col_start: int
) -> Tensor:
    return kernels.body_for(logits).index((logits, 1.0, seed, rows, mask, col_start), samples)


def _index_fake(logits: Tensor, seed: Tensor, rows: Any, mask: Any, samples: int, col_start: int) -> Tensor:
    return logits.new_empty((samples, *logits.shape[:-1]), dtype=torch.int64)


def _index_vmap(
    info: Any, in_dims: tuple, logits: Tensor, seed: Tensor, rows: Any, mask: Any, samples: int, col_start: int
) -> tuple[Tensor, int]:
    dims = (in_dims[0], None, *in_dims[1:4])
    logits, _, *rest, _ = batched(info, dims, Draw(logits, 1.0, seed, rows, mask, col_start))
    return gumbel_max(logits, *rest, samples, col_start), 1


gumbel_max = Operation(
    "gumbel_max",
    "(Tensor logits, Tensor seed, Tensor? rows, Tensor? mask, SymInt samples, SymInt col_start) -> Tensor",
    _index,
    _index_fake,
    _index_vmap,
)


def _best(
    logits: Tensor, seed: Tensor, rows: Tensor | None, mask: Tensor | None, samples: int, col_start: int
) -> tuple[Tensor, Tensor]:
    return kernels.body_for(logits).best((logits, 1.0, seed, rows, mask, col_start), samples)


def _best_fake(
    logits: Tensor, seed: Tensor, rows: Any, mask: Any, samples: int, col_start: int
) -> tuple[Tensor, Tensor]:
    shape = (samples, *logits.shape[:-1])
    return logits.new_empty(shape, dtype=torch.int64), logits.new_empty(shape, dtype=compute_dtype(logits.dtype))


# The index in a block of a wider row and its score there, by which blocks come together.
best = Operation(
    "best",
    "(Tensor logits, Tensor seed, Tensor? rows, Tensor? mask, SymInt samples, SymInt col_start) -> (Tensor, Tensor)",
    _best,
    _best_fake,
)


def _noise(seed: Tensor, rows: Tensor, stream: Tensor, cols: int, col_start: int, dtype: torch.dtype) -> Tensor:
    return kernels.body(seed.device, dtype).gumbel(seed, rows, cols, col_start, stream, dtype)


def _noise_fake(seed: Tensor, rows: Tensor, stream: Tensor, cols: int, col_start: int, dtype: torch.dtype) -> Tensor:
    return rows.new_empty((*torch.broadcast_shapes(seed.shape, rows.shape)[:-1], cols), dtype=dtype)


def _noise_vmap(
    info: Any, in_dims: tuple, seed: Tensor, rows: Tensor, stream: Tensor, cols: int, col_start: int, dtype: torch.dtype
) -> tuple[Tensor, int]:
    rank = 1 + max(x.dim() - (d is not None) for x, d in zip((seed, rows, stream), in_dims[:3], strict=True))
    seed, rows, stream = (aligned(x, d, rank) for x, d in zip((seed, rows, stream), in_dims[:3], strict=True))
    return gumbel_noise(seed, rows.expand(info.batch_size, *rows.shape[-rank + 1 :]), stream, cols, col_start, dtype), 0


gumbel_noise = Operation(
    "gumbel_noise",
    "(Tensor seed, Tensor rows, Tensor stream, SymInt cols, SymInt col_start, ScalarType dtype) -> Tensor",
    _noise,
    _noise_fake,
    _noise_vmap,
)


def batched(info: Any, in_dims: tuple, draw: Draw) -> Draw:
    """The draw with the mapped dimension in front, so that one call serves the whole map.

    Each example keeps the row ids that it would have alone: the default ids do not run on over the mapped dimension.
    Whether examples share their noise is thus decided by the seed, mapped or not: vmap's own two random modes.
    """
    logits, *between, col_start = draw
    mapped = in_dims[0] is not None
    logits = logits.movedim(in_dims[0], 0) if mapped else logits.expand(info.batch_size, *logits.shape)
    tau, seed, rows, mask = (aligned(x, d, logits.dim()) for x, d in zip(between, in_dims[1:5], strict=True))
    if rows is None:
        rows = row_ids(logits.shape[1:-1], logits.device)
    return Draw(logits, tau, seed, rows, mask, col_start)


def aligned(x: Any, dim: int | None, rank: int) -> Any:
    """``x`` with its mapped dimension (if any) in front and padded by ones to ``rank``, so that it broadcasts."""
    if x is None or dim is None:
        return x
    x = x.movedim(dim, 0)
    return x.reshape(x.shape[0], *[1] * (rank - x.dim()), *x.shape[1:])
