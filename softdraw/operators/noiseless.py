"""Draws without noise in torch's own operations, for everything that inspects the graph.

An evaluation mode is a softmax or an argmax. Written this way, an exported program has no operator of this library: it
runs where softdraw is not installed, converts to ONNX, and fuses with the operations around it. The values are those
of the kernels, and so are the gradients. One thing is missing: a tensor ``tau`` that is not positive and finite cannot
be refused inside a graph, so it makes its rows NaN.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from softdraw.arguments import Tau, compute_dtype
from softdraw.numerics import masked, masked_for_draw
from softdraw.operators.operator import under_torch_func


def soft(logits: Tensor, tau: Tau, mask: Tensor | None) -> Tensor:
    """softmax(logits / tau); a row with nothing allowed is all zero, one with NaN or +inf is NaN."""
    return _softmax(_scores(logits, mask), tau).to(logits.dtype)


def hard(logits: Tensor, tau: Tau, mask: Tensor | None) -> Tensor:
    """The one-hot of the smallest argmax, with the gradient of ``soft``; rows as there."""
    s = _scores(logits, mask)
    categories = torch.arange(s.shape[-1], device=s.device)
    chosen = (categories == s.argmax(-1, keepdim=True)) & (s != -math.inf)
    undefined = (s.isnan() | (s == math.inf)).any(-1, keepdim=True)
    y = chosen.to(s.dtype).masked_fill(undefined, math.nan)
    if _differentiated(s) or _differentiated(tau):
        p = _softmax(s, tau)
        y = y + (p - p.detach())  # the bracket is exactly 0, so y keeps its value bit for bit
    return y.to(logits.dtype)


def _scores(logits: Tensor, mask: Tensor | None) -> Tensor:
    x = logits.to(compute_dtype(logits.dtype))
    return masked_for_draw(x, mask) if _differentiated(x) else masked(x, mask)


def _softmax(s: Tensor, tau: Tau) -> Tensor:
    nothing = (s == -math.inf).all(-1, keepdim=True)  # not from the maximum: outside torch it may pass over NaN
    top = s.detach().amax(-1, keepdim=True)
    z = _divided((s - top).masked_fill(nothing, 0), tau)
    p = z.softmax(-1)
    # A category of zero mass takes no gradient, whatever arrives there: 0 * inf would be NaN.
    return p.masked_fill(nothing | (p == 0), 0)


def _divided(x: Tensor, tau: Tau) -> Tensor:
    """x / tau for x <= 0. The gradient of tau is that of -z log tau, which is finite where x / tau^2 is not."""
    if not isinstance(tau, Tensor):
        return x / tau
    limits = torch.finfo(x.dtype)
    legal = (tau > 0) & (tau < math.inf)
    t = torch.where(legal, tau.to(x.dtype).clamp(limits.tiny, limits.max), math.nan)
    z = x / t.detach()
    if not _differentiated(tau):
        return z
    log_t = t.log()
    return z - z.detach().clamp_min(limits.min) * (log_t - log_t.detach())


def _differentiated(x: Tau) -> bool:
    """Whether a gradient for ``x`` may be asked for. Under torch.func that cannot be told from ``x``; and
    torch.jit.trace runs twice, the second time without gradients, and wants the same graph again."""
    if not isinstance(x, Tensor):
        return False
    if torch.jit.is_tracing() and not torch.onnx.is_in_onnx_export():  # pyright: ignore[reportPrivateImportUsage]
        return True
    return under_torch_func() or (x.requires_grad and torch.is_grad_enabled())
