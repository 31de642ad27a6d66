"""The operations in plain torch: what is right by definition, and what every fast body must equal.

A body takes a ``Draw``, or its fields in a plain tuple: logits with the categories last; ``tau`` (a number, or a tensor
of any floating dtype), ``seed`` and ``rows`` (int64) broadcast to ``(*batch, 1)``; ``mask`` has the shape of the
logits.
With scores s = logits + G, a forbidden category at -inf, and m = max s:

    soft     y_j = exp((s_j - m) / tau) / sum_i exp((s_i - m) / tau)
    index    x = the smallest j with s_j = m

A row with nothing allowed (m = -inf) is all zero and has index -1. A row with NaN or +inf is NaN and has index -1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from softdraw import noise, numerics
from softdraw.arguments import Fields, Tau, compute_dtype, row_ids, tau_error
from softdraw.private_torch import assert_later

_CHUNK = 2**22  # scores held at once by index


def soft(draw: Fields) -> Tensor:
    """The relaxed draw: rows of the simplex, in the dtype and layout of the logits."""
    logits, tau, *_ = draw
    s = scores(draw)
    return _laid_out_like(numerics.softmax(s, _checked_or_number(tau, s.dtype)), logits)


def hard(draw: Fields) -> Tensor:
    """The exact draw as a one-hot, in the dtype and layout of the logits; tau is checked but does not change the
    draw."""
    logits, tau, *_ = draw
    _checked_or_number(tau, compute_dtype(logits.dtype))
    index, top = _argmax(scores(draw))
    categories = torch.arange(logits.shape[-1], device=logits.device)
    y = (categories == index.unsqueeze(-1)).to(compute_dtype(logits.dtype))
    return _laid_out_like(y.masked_fill((top.isnan() | (top == math.inf)).unsqueeze(-1), math.nan), logits)


def index(draw: Fields, samples: int) -> Tensor:
    """The exact draw as an index: int64 of shape ``(samples, *batch)``; sample i is noise stream i."""
    return _by_streams(draw, samples, lambda s: _argmax(s)[0])


def best(draw: Fields, samples: int) -> tuple[Tensor, Tensor]:
    """``index``, and the score there: -inf where nothing is allowed, NaN in a row with NaN or +inf."""

    def both(s: Tensor) -> Tensor:
        at, top = _argmax(s)
        top = top.masked_fill(top == math.inf, math.nan)
        return torch.stack((at.double(), top.double()), -1)  # both are exact: indices are below 2^32

    at, score = _by_streams(draw, samples, both).unbind(-1)
    return at.long(), score.to(compute_dtype(draw[0].dtype))


def tempered(draw: Fields, samples: int) -> Tensor:
    """The index of the largest x + tau G, ``(samples, *batch)``: tau is the temperature of the law here, and 0 the
    argmax."""
    return _by_streams(draw, samples, lambda s: _argmax(s)[0], _temperature(draw))


def drawn(draw: Fields, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """``tempered``; the logits at the indices, ``(samples, *batch)``; and max x, log sum exp(x - max x) and
    sum p log p of the law without temperature, ``(*batch, 3)``. Numbers are float64.

    A row that has no draw has NaN or, where nothing is allowed, the logit -inf and the numbers 0.
    """
    at = tempered(draw, samples)
    x = numerics.masked(draw[0].double(), draw[4])
    top = x.amax(-1)
    bad, nothing = top.isnan() | (top == math.inf), top == -math.inf
    log_p = numerics.log_probs(x)
    log_sum = (x - top.unsqueeze(-1)).logsumexp(-1)
    numbers = torch.stack((top, log_sum, numerics.times(log_p.exp(), log_p).sum(-1)), -1)
    numbers = numbers.masked_fill(nothing.unsqueeze(-1), 0).masked_fill(bad.unsqueeze(-1), math.nan)
    chosen = x.expand(samples, *x.shape).gather(-1, at.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    return at, chosen.masked_fill(bad, math.nan), numbers


def topk(draw: Fields, samples: int, k: int) -> Tensor:
    """The indices of the k largest x + tau G, best first, ``(samples, *batch, k)``; -1 where there are no more."""

    def best(s: Tensor) -> Tensor:
        top, at = s.sort(dim=-1, descending=True, stable=True)  # topk has no order among equal scores
        bad = (s.isnan() | (s == math.inf)).any(-1, keepdim=True)
        at = torch.where(bad | (top == -math.inf), -1, at)[..., :k]
        return torch.nn.functional.pad(at, (0, k - at.shape[-1]), value=-1)

    return _by_streams(draw, samples, best, _temperature(draw))


def _temperature(draw: Fields) -> Tau:
    t = draw[1]
    return checked_temperature(t, compute_dtype(draw[0].dtype)) if isinstance(t, Tensor) else t


def _by_streams(draw: Fields, samples: int, reduce: Callable[[Tensor], Tensor], temperature: Tau = 1.0) -> Tensor:
    """``reduce`` of the scores of each sample, of some samples at a time, which bounds the memory."""
    logits = draw[0]
    step = max(1, _CHUNK // max(1, logits.numel()))
    parts = []
    for first in range(0, max(samples, 1), step):
        streams = torch.arange(first, min(first + step, samples), device=logits.device)
        parts.append(reduce(scores(draw, streams.view(-1, *[1] * logits.dim()), temperature)))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


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


def hard_backward(draw: Fields, grad: Tensor) -> Tensor:
    """The straight-through gradient for the logits: that of the soft draw with the same noise, made again here and
    rounded to the dtype of the logits in the result only."""
    logits, tau, seed, rows, mask, col_start = draw
    y = soft((logits.to(compute_dtype(logits.dtype)), tau, seed, rows, mask, col_start))
    return relaxed_vjp(y, grad, tau)[0].to(logits.dtype)


def scores(draw: Fields, stream: Tensor | None = None, temperature: Tau = 1.0) -> Tensor:
    """Logits plus noise in the compute dtype, -inf where forbidden; the noise is that of stream 0 by default, times
    the temperature."""
    logits, _, seed, rows, mask, col_start = draw
    s = logits.to(compute_dtype(logits.dtype))
    if seed is not None:
        ids = row_ids(logits.shape[:-1], logits.device) if rows is None else rows
        stream = torch.zeros((), dtype=torch.int64, device=logits.device) if stream is None else stream
        made = noise.gumbel(seed, ids, logits.shape[-1], col_start, stream, s.dtype)
        plain = not isinstance(temperature, Tensor) and temperature == 1
        s = s + (made if plain else made * temperature)
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


def checked_temperature(t: Tensor, dtype: torch.dtype) -> Tensor:
    """A temperature in the compute dtype; a value that is negative, infinite or NaN is an error."""
    legal = ((t >= 0) & (t < math.inf)).all()
    if t.device.type != "cpu":
        assert_later(legal, "temperature must be 0 or more and finite")
    elif not legal:
        raise temperature_error(f"values from {t.min().item()} to {t.max().item()}")
    return t.to(dtype).clamp_max(temperature_max(dtype))


def temperature_error(got: object) -> ValueError:
    """The error for a temperature outside its range."""
    return ValueError(f"temperature must be 0 (the argmax) or more, and finite, got {got}: 1 is the law of the logits")


def temperature_max(dtype: torch.dtype) -> float:
    """The largest temperature that counts: at it the noise, at most 46 T, does not overflow beside any finite logit.
    It makes the law of logits that differ by less than 1e22 uniform."""
    limits = torch.finfo(dtype)
    return limits.max * limits.eps / 256


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
