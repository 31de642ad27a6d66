"""Subsets as autograd sees them: the log-normalizer, whose derivative is the mean, whose derivative is the covariance.

On plain CPU tensors each is one call of the compiled body. Where there is none, and for everything that inspects the
operations (torch.compile, torch.func, forward mode, dispatch modes), it is ``kernels.reference.subset``, which is made
of torch's own operations and has every derivative; the third derivative always goes through it.

On a GPU plain torch runs as well: a level of the tree is a few operations over all of its nodes, some hundred launches
for a draw whatever n and k are. A kernel would save these, a millisecond or so, and none has been written for it yet:
nodes differ in shape from level to level, and the products of the top levels are what a GPU does well anyway.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, is_grad_enabled

from softdraw import kernels
from softdraw.arguments import row_ids
from softdraw.kernels import subset_cpu
from softdraw.kernels.reference import subset as reference
from softdraw.kernels.reference.subset import Size, too_few
from softdraw.private_torch import function_modes, has_storage, quick_apply
from softdraw.tensors import PLAIN, is_plain

__all__ = ["Size", "covariance", "log_density", "log_normalizer", "mean", "sample", "too_few"]


def log_normalizer(x: Tensor, k: Size) -> Tensor:
    """log Z of logits in float32 or float64, -inf where forbidden."""
    return _log_normalizer(x, k) if _compiled(x, k) else reference.log_normalizer(x, k)


def log_density(x: Tensor, k: Size, value: Tensor) -> Tensor:
    """log p(value), affine in the value; -inf where fewer than k items are allowed."""
    if not _compiled(x, k):
        return reference.log_density(x, k, value)
    log_q, c = _log_q(x, k)
    odds = reference.limit(x, k).double() + c
    log_p = reference.density(odds, log_q, value)
    return log_p.masked_fill(too_few(x, k).squeeze(-1), -torch.inf).to(x.dtype)


def mean(x: Tensor, k: Size) -> Tensor:
    """Inclusion probabilities."""
    return _mean(x, k) if _compiled(x, k) else reference.mean(x, k)


def covariance(x: Tensor, k: Size, grad: Tensor) -> Tensor:
    """The covariance times a vector of the shape of the logits."""
    return _covariance(x, grad, k) if _compiled(x, k, grad) else reference.covariance(x, k, grad)


def sample(x: Tensor, k: Size, seed: Tensor, rows: Tensor | None, samples: int) -> Tensor:
    """Exact subsets as k-hots, ``(samples, *x.shape)``, without gradient."""
    x = x.detach()
    if _compiled(x, k, seed) and not seed.dim():
        return subset_cpu.sample(x, k, seed, rows, samples)
    ids = row_ids(x.shape[:-1], x.device) if rows is None else rows
    return reference.sample(x, k, seed, ids, samples)


def _compiled(x: Tensor, k: Size, other: Tensor | None = None) -> bool:
    """Whether the compiled body runs: no mode or transform has to see the operations, and the body is available and
    right."""
    if not (is_plain(x) and x.is_cpu) or function_modes() or (other is not None and type(other) not in PLAIN):
        return False
    if isinstance(k.each, Tensor) and not (type(k.each) in PLAIN and k.each.is_cpu):
        return False
    return kernels.body_for(x).subsets is subset_cpu and subset_cpu.agrees(x.dtype)


class _LogNormalizer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, k: Size) -> Tensor:
        ctx.k = k
        ctx.save_for_backward(x)
        return subset_cpu.normalizer(x, k)[..., 0].to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple:
        (x,) = ctx.saved_tensors
        return grad_outputs[0].unsqueeze(-1) * mean(x, ctx.k), None


class _LogQ(torch.autograd.Function):
    """log q_k, whose derivative is the mean less the probabilities of the bits, and the tilt."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, k: Size) -> tuple[Tensor, Tensor]:
        _, log_q, c = subset_cpu.normalizer(x, k).unsqueeze(-2).unbind(-1)
        ctx.k = k
        ctx.save_for_backward(x, c)
        ctx.mark_non_differentiable(c)
        return log_q.squeeze(-1), c

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple:
        x, c = ctx.saved_tensors
        p = torch.sigmoid(reference.limit(x, ctx.k).double() + c)
        slope = (mean(x, ctx.k) - p).masked_fill(too_few(x, ctx.k), 0)
        return (grad_outputs[0].unsqueeze(-1) * slope).to(x.dtype), None


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, k: Size) -> Tensor:
        ctx.k = k
        ctx.save_for_backward(x)
        return subset_cpu.mean(x, k)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple:
        (x,) = ctx.saved_tensors
        grad = grad_outputs[0]
        return (covariance if has_storage(grad) else reference.covariance)(x, ctx.k, grad), None


class _Covariance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, grad: Tensor, k: Size) -> Tensor:
        ctx.k = k
        ctx.save_for_backward(x, grad)
        return subset_cpu.covariance(x, k, grad)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple:
        with torch.enable_grad():  # through views, so that what they were made from is not followed here
            x, grad = (t.view_as(t) for t in ctx.saved_tensors)
            y = reference.covariance(x, ctx.k, grad)
        wanted: Any = [t for t, asked in zip((x, grad), ctx.needs_input_grad, strict=False) if asked]
        made = iter(torch.autograd.grad(y, wanted, grad_outputs[0], create_graph=is_grad_enabled()))
        return *(next(made) if asked else None for asked in ctx.needs_input_grad[:2]), None


_log_normalizer = quick_apply(_LogNormalizer, _LogNormalizer.backward)
_log_q = quick_apply(_LogQ, _LogQ.backward)
_mean = quick_apply(_Mean, _Mean.backward)
_covariance = quick_apply(_Covariance, _Covariance.backward)
