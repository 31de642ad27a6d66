"""The fused layer and draw as autograd sees them, and the formula in torch's own operations that takes their place.

Under torch.func, forward-mode differentiation and export, and where a backward pass is differentiated again, all logits
are made, and everything is a formula that has every derivative.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, is_grad_enabled
from torch.compiler import is_compiling

from softdraw.arguments import KernelRule, compute_dtype, tau_tensor
from softdraw.numerics import masked_for_draw, one_hot
from softdraw.operators import draws
from softdraw.operators.indices import said
from softdraw.operators.linear import linear, result, with_missing
from softdraw.operators.linear_backward import backward
from softdraw.operators.operator import in_graph
from softdraw.rules.fused import Request, draw_one_hots
from softdraw.rules.pathwise import OneHots, Pathwise, attach, gradient
from softdraw.tensors import is_plain


class Call(NamedTuple):
    """A call of :func:`softdraw.linear_draw` with its rows in one dimension, N."""

    x: Tensor  # (N, D)
    weight: Tensor
    bias: Tensor | None
    codebook: Tensor | None
    seed: Tensor  # one, or (N, 1)
    rows: Tensor  # (N, 1)
    mask: Tensor | None  # (..., K), of N rows
    col_start: int
    dtype: torch.dtype  # of the logits and the value
    rule: Pathwise
    kernel: KernelRule


def drawn(call: Call) -> tuple[Tensor | None, Tensor, Tensor]:
    """Value (None without a codebook), index and log-probability."""
    x, weight, bias, codebook, seed, rows, mask, col_start, dtype, rule, kernel = call
    if not (is_plain(x) or in_graph()):
        return _unfused(call)
    if kernel.name == "zgr" or _is_one(kernel):
        tau = None
    else:
        tau = tau_tensor(kernel.tau, _like_logits(call), 1).to(compute_dtype(dtype))
    given = (x, weight, bias, codebook, seed, rows, mask, tau, col_start, dtype, rule, kernel.name)
    if codebook is None:
        return None, *_Index.apply(*given)
    return _Value.apply(*given)


def _is_one(kernel: KernelRule) -> bool:
    return not isinstance(kernel.tau, Tensor) and kernel.tau == 1


def _like_logits(call: Call) -> Tensor:
    """Something with the shape, dtype and device of the logits, that takes no memory."""
    n, k = len(call.x), len(call.weight)
    return torch.empty((), dtype=call.dtype, device=call.x.device).expand(n, k)


def _unfused(call: Call) -> tuple[Tensor | None, Tensor, Tensor]:
    """The same with all logits."""
    x, weight, bias, codebook, seed, rows, mask, col_start, dtype, rule, _ = call
    logits = F.linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
    mask = None if mask is None else mask.reshape(logits.shape)
    index = draws.gumbel_max(logits.detach(), seed, rows, mask, 1, col_start).squeeze(0)
    log_prob = said(logits, mask, index.unsqueeze(0))[0].squeeze(0)
    if codebook is None:
        return None, index, log_prob
    y = draw_one_hots(rule, logits, Request(seed, rows, mask))
    return y @ codebook.to(dtype), index, log_prob


class _Index(torch.autograd.Function):
    """Index and log-probability."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor, Tensor]:
        x, weight, bias, _, seed, rows, mask, _, col_start, dtype, *_ = given
        with torch.autocast(x.device.type, enabled=False):
            numbers, column = linear(x, weight, bias, seed, rows, mask, col_start, dtype)
        index, log_prob, logsumexp = result(numbers, column, col_start, dtype)
        ctx.save_for_backward(*given[:8], index, logsumexp)
        ctx.how = given[8:]
        ctx.mark_non_differentiable(index)
        return index, log_prob

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple:
        return _gradients(ctx, None, grad_outputs[1])


class _Value(torch.autograd.Function):
    """Value, index and log-probability."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor, Tensor, Tensor]:
        codebook, dtype = given[3], given[9]
        index, log_prob = _Index.forward(ctx, *given)
        if not is_compiling():
            ctx.set_materialize_grads(False)
        return with_missing(codebook[index.clamp_min(0)].to(dtype), index, log_prob), index, log_prob

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple:
        return _gradients(ctx, grad_outputs[0], grad_outputs[2])


def _gradients(ctx: Any, u: Tensor | None, g: Tensor | None) -> tuple:
    *inputs, index, logsumexp = ctx.saved_tensors
    x, weight, bias, codebook, seed, rows, mask, tau = inputs
    col_start, dtype, _, name = ctx.how
    wanted = list(ctx.needs_input_grad[:4])
    if u is None and g is None:
        return (None,) * 12
    if not is_compiling() and is_grad_enabled():
        made = _by_formula(ctx, inputs, index, u, g)
    else:
        with torch.autocast(x.device.type, enabled=False):
            made = backward(
                *(x, weight, bias, seed, rows, mask, col_start, dtype),
                *(codebook, index, logsumexp, u, g, name, tau, wanted),
            )
    return (*(t if asked else None for t, asked in zip(made, wanted, strict=True)), *[None] * 8)


def _by_formula(ctx: Any, inputs: list, index: Tensor, u: Tensor | None, g: Tensor | None) -> tuple:
    """The same gradients with all logits, differentiable in what arrives and in every input."""
    x, weight, bias, codebook, seed, rows, mask, _ = inputs
    _, dtype, rule, _ = ctx.how
    wide = compute_dtype(dtype)
    logits = F.linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
    mask = None if mask is None else mask.reshape(logits.shape)
    theta = masked_for_draw(logits.to(wide), mask)
    hard = one_hot(index, len(weight), wide)
    v = torch.zeros_like(theta)
    if u is not None:
        h = (u.to(dtype) @ codebook.to(dtype).t()).to(wide)
        every = (theta.unsqueeze(0), hard.unsqueeze(0), h.unsqueeze(0))
        v = v + gradient(rule, OneHots(every[0]), *every[1:], seed, rows.unsqueeze(0), True).squeeze(0)
    if g is not None:
        v = v + g.unsqueeze(-1) * (hard - OneHots(theta).mean)
    v = v.to(dtype)
    of_codebook = None
    if codebook is not None and u is not None:
        y = attach(rule, OneHots, theta.unsqueeze(0), hard.unsqueeze(0), seed, rows, True).squeeze(0)
        of_codebook = (y.t() @ u.to(wide)).to(codebook.dtype)
    return (
        (v @ weight.to(dtype)).to(x.dtype),
        (v.t() @ x.to(dtype)).to(weight.dtype),
        None if bias is None else v.sum(0).to(bias.dtype),
        of_codebook,
    )
