"""The operations in plain torch: what is right by definition, and what every fast body must equal.

A body takes a ``Draw``: logits with the categories last; ``tau`` (a number, or a tensor of any floating dtype),
``seed`` and ``rows`` (int64) broadcast to ``(*batch, 1)``; ``mask`` has the shape of the logits.
With scores s = logits + G, a forbidden category at -inf, and m = max s:

    soft     y_j = exp((s_j - m) / tau) / sum_i exp((s_i - m) / tau)
    index    x = the smallest j with s_j = m

A row with nothing allowed (m = -inf) is all zero and has index -1. A row with NaN or +inf is NaN and has index -1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from softdraw import noise, numerics
from softdraw.arguments import Draw, Tau, compute_dtype, row_ids, tau_error
from softdraw.private_torch import assert_later

passes = None  # nothing is faster here than the formulas of pass_reference
bits = None  # nor than those of laws and losses
_CHUNK = 2**22  # scores held at once by index


def soft(draw: Draw) -> Tensor:
    """The relaxed draw: rows of the simplex, in the dtype and layout of the logits."""
    s = scores(draw)
    return _laid_out_like(numerics.softmax(s, _checked_or_number(draw.tau, s.dtype)), draw.logits)


def hard(draw: Draw) -> Tensor:
    """The exact draw as a one-hot, in the dtype and layout of the logits; tau is checked, and moves no draw."""
    logits = draw.logits
    _checked_or_number(draw.tau, compute_dtype(logits.dtype))
    index, top = _argmax(scores(draw))
    categories = torch.arange(logits.shape[-1], device=logits.device)
    y = (categories == index.unsqueeze(-1)).to(compute_dtype(logits.dtype))
    return _laid_out_like(y.masked_fill((top.isnan() | (top == math.inf)).unsqueeze(-1), math.nan), logits)


def index(draw: Draw, samples: int) -> Tensor:
    """The exact draw as an index: int64 of shape ``(samples, *batch)``; sample i is noise stream i."""
    logits = draw.logits
    out = torch.empty((samples, *logits.shape[:-1]), dtype=torch.int64, device=logits.device)
    step = max(1, _CHUNK // max(1, logits.numel()))
    for first in range(0, samples, step):
        streams = torch.arange(first, min(first + step, samples), device=logits.device)
        stream = streams.view(-1, *[1] * logits.dim())
        out[first : first + step] = _argmax(scores(draw, stream))[0]
    return out


def gumbel(seed: Tensor, rows: Tensor, cols: int, col_start: int, stream: Tensor, dtype: torch.dtype) -> Tensor:
    """Standard Gumbel noise of shape ``(..., cols)``."""
    return noise.gumbel(seed, rows, cols, col_start, stream, dtype)


def relaxed_vjp(y: Tensor, grad: Tensor, tau: Tau) -> tuple[Tensor, Tensor]:
    r"""Gradients of :math:`y = \mathrm{softmax}(s / \tau)` for s and for tau, from the output alone; differentiable.

    With z = s / tau and v = J(y) g = y (g - <g, y>):  ds = v / tau  and  dtau = -<v, z> / tau.
    Since sum v = 0, z may be replaced by log y = z - logsumexp z, so z need not be kept. A category of
    zero mass passes no gradient, whatever arrives there (0 * inf would be NaN).
    """
    dtype = compute_dtype(y.dtype)
    tau = tau if isinstance(tau, Tensor) else torch.full((), tau, dtype=dtype, device=y.device)
    t, p = _clamped(tau, dtype), y.to(dtype)
    g = grad.to(dtype).masked_fill(p == 0, 0)
    v = numerics.softmax_vjp(p, g)
    dtau = -(v * p.clamp_min(torch.finfo(dtype).tiny).log()).sum(-1, keepdim=True) / t
    return (v / t).to(y.dtype), dtau.sum_to_size(tau.shape).to(tau.dtype)


def soft_backward(y: Tensor, grad: Tensor, tau: Tau) -> Tensor:
    """The gradient for the logits of a soft draw ``y``."""
    return relaxed_vjp(y, grad, tau)[0]


def hard_backward(draw: Draw, grad: Tensor) -> Tensor:
    """The straight-through gradient for the logits: that of the soft draw with the same noise, made again here and
    rounded to the dtype of the logits in the result only."""
    dtype = draw.logits.dtype
    y = soft(draw._replace(logits=draw.logits.to(compute_dtype(dtype))))
    return relaxed_vjp(y, grad, draw.tau)[0].to(dtype)


def scores(draw: Draw, stream: Tensor | None = None) -> Tensor:
    """Logits plus noise in the compute dtype, -inf where forbidden; the noise is that of stream 0 by default."""
    logits, _, seed, rows, mask, col_start = draw
    s = logits.to(compute_dtype(logits.dtype))
    if seed is not None:
        ids = row_ids(logits.shape[:-1], logits.device) if rows is None else rows
        stream = torch.zeros((), dtype=torch.int64, device=logits.device) if stream is None else stream
        s = s + noise.gumbel(seed, ids, logits.shape[-1], col_start, stream, s.dtype)
    return s if mask is None else s.masked_fill(~mask, -math.inf)


def _argmax(s: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest index of the maximum (-1 for a row that has no finite one) and the maximum."""
    top, at = s.max(-1)
    return torch.where(top.isfinite(), at, -1), top


def checked(tau: Tensor, dtype: torch.dtype) -> Tensor:
    """``tau`` in the compute dtype; a value that is not positive and finite is an error."""
    legal = ((tau > 0) & (tau < math.inf)).all()
    if tau.device.type != "cpu":
        assert_later(legal, "tau must be positive and finite")
    elif not legal:
        raise tau_error(f"values from {tau.min().item()} to {tau.max().item()}")
    return _clamped(tau, dtype)


def _checked_or_number(tau: Tau, dtype: torch.dtype) -> Tau:
    return checked(tau, dtype) if isinstance(tau, Tensor) else tau  # a number was checked where it was given


def _clamped(tau: Tensor, dtype: torch.dtype) -> Tensor:
    """``tau`` in the compute dtype, where a wider type's value could have become 0 or inf."""
    limits = torch.finfo(dtype)
    return tau.to(dtype).clamp(limits.tiny, limits.max)


def _laid_out_like(y: Tensor, logits: Tensor) -> Tensor:
    """``y`` in the dtype and the strides of the logits (channels_last in, channels_last out)."""
    out = torch.empty_like(logits)
    return out.copy_(y) if y.dtype != out.dtype or y.stride() != out.stride() else y
