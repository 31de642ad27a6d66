"""The passes of laws and losses as a fast body has them, and by their formulas: for ``check``, on a few small rows.

Gradients are those of the formulas in ``pass_reference`` and in ``operators/bits.py``, written out: a check must not
call autograd, which may be recording what the user does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from softdraw.arguments import compute_dtype
from softdraw.kernels.bits_cpu import UNIT_INTERVAL, Bits
from softdraw.kernels.native import CHECKS, USAGE
from softdraw.kernels.pass_reference import Rows

Result = tuple[str, Tensor, Tensor]
_SCALE, _SHIFT, _POSITIVE, _SHARE = 1.5, 0.25, 2.0, 0.3
_BOTH = True, True


def results(body: Any, x: Tensor) -> Iterator[Result]:
    """What each pass of the body gives for logits ``(rows, columns)``: its name, the body's result, the formula's.
    A body without passes has nothing to compare."""
    x = (5 * x.to(compute_dtype(x.dtype))).sin().to(x.dtype)  # rows of one law would hide their differences
    if getattr(body, "passes", None) is not None:
        yield from _over_rows(body.passes, x)
    if getattr(body, "over_bits", None) is not None:
        yield from _over_bits(body.over_bits, x)
        yield from _reduced_bits(body.over_bits, x)


def _over_rows(passes: Any, x: Tensor) -> Iterator[Result]:
    count, cols = x.shape
    wide = compute_dtype(x.dtype)
    mask = (torch.arange(cols, device=x.device) % 3 != 1).expand(x.shape)
    one, two = Rows(x, mask=mask), Rows(x, x.flip(0), mask, mask)
    g = _ramp(0.5, 1, count, x)
    log_p, log_q = _log_probs(x.to(wide), mask), _log_probs(two.other.to(wide), mask)
    p, q, up = log_p.exp(), log_q.exp(), g.unsqueeze(-1)
    safe_p, safe_q = (log.masked_fill(~mask, 0) for log in (log_p, log_q))
    mean = (p * safe_p).sum(-1, keepdim=True)

    value = _SCALE * (mean.squeeze(-1) + _SHIFT)
    slope = _SCALE * up * p * (safe_p - mean)
    yield from _both("entropy", passes, one, g, (_SCALE, _SHIFT), value, (slope,))
    category = torch.arange(count, device=x.device)
    category = category // 2 * 3 + category % 2 * 2  # which the mask allows
    hit = torch.arange(cols, device=x.device) == category.unsqueeze(-1)
    value, slope = -(safe_p * hit).sum(-1), up * (p - hit.to(wide))
    yield from _both("index_nll", passes, one._replace(category=category), g, (), value, (slope,))
    t = q / 2  # of a sum that is not 1
    value = -_SCALE * (t * safe_p).sum(-1)
    slopes = _SCALE * up * (p * t.sum(-1, keepdim=True) - t), -_SCALE * up * safe_p
    yield from _both("nll", passes, one._replace(other=t), g, (_SCALE, CHECKS["Anything"], 0.0), value, slopes, mask)
    v = (p * (safe_p - safe_q)).sum(-1, keepdim=True)
    slopes = up * p * (safe_p - safe_q - v), up * (q - p)
    yield from _both("kl", passes, two, g, (), v.squeeze(-1), slopes)
    if hasattr(passes, "usage"):
        yield from _usage(passes, one, p, q)
    if hasattr(passes, "drawn_backward"):
        lse = ((x.to(wide) - log_p) * hit).nan_to_num(0, 0, 0).sum(-1)
        numbers = torch.stack((lse - 0.25, torch.full_like(lse, 0.25), mean.squeeze(-1)), -1).double()
        arriving = torch.stack((g, 2 * g))
        at = one._replace(category=category.unsqueeze(0))
        dx = up * (hit.to(wide) - p - 2 * p * (safe_p - mean))
        yield "drawn_backward", passes.drawn_backward(at, arriving, numbers, "none", _BOTH)[0], dx.to(x.dtype)


def _usage(passes: Any, rows: Rows, p: Tensor, chosen: Tensor) -> Iterator[Result]:
    """Losses of the mean law: of its entropy, and of its product with the choices."""
    (count, k), q, g = p.shape, p.mean(0), torch.full((), 2.0, dtype=p.dtype, device=p.device)
    log_q = q.clamp_min(torch.finfo(q.dtype).tiny).log()
    used, f = (-(q * log_q).sum()).exp(), chosen.sum(0)
    slope = used * (log_q + 1) / k
    for code, other, value, s in (
        ("Diversity", None, (k - used) / k, slope),
        ("Balance", f, k * (f * q).sum() / f.sum(), k * f / f.sum()),
    ):
        dx = g * p * (s - (p * s).sum(-1, keepdim=True)) / count
        yield from _both("usage", passes, rows._replace(other=other), g, (USAGE[code], False), value, (dx,))


def _both(
    name: str,
    passes: Any,
    rows: Rows,
    g: Tensor,
    numbers: tuple,
    value: Tensor,
    slopes: tuple[Tensor, ...],
    allowed: Tensor | None = None,
) -> Iterator[Result]:
    """A pass and its gradients; that of a target is compared where it is ``allowed``."""
    made = getattr(passes, name)(rows, "none", *numbers)
    if made is None:  # it refuses rows that it must know
        yield name, torch.full_like(value, torch.nan), value
        return
    out, saved = made
    yield name, out, value
    gradients = getattr(passes, f"{name}_backward")(rows, g, saved, "none", _BOTH, *numbers)
    for number, (ours, theirs) in enumerate(zip(gradients, slopes, strict=False)):
        ours = ours.masked_fill(~allowed, 0) if number and allowed is not None else ours
        yield f"{name}_backward", ours, theirs.to(ours.dtype)


def _over_bits(passes: Any, x: Tensor) -> Iterator[Result]:
    """Functions of each bit by itself; gradients are stored as the logits are."""
    wide = compute_dtype(x.dtype)
    z, g = x.flip(0, 1).to(wide), _ramp(0.5, 1, x.numel(), x).view(x.shape).to(x.dtype)
    w, up = x.to(wide), g.to(wide)
    on, off, other = torch.sigmoid(w), torch.sigmoid(-w), torch.sigmoid(z)
    bits, pair = Bits(x), Bits(x, z)
    yield "bits_entropy", passes.entropy(bits), (softplus(w) - w * on).to(x.dtype)
    yield "bits_entropy_backward", passes.entropy_backward(bits, g), (-up * w * on * off).to(x.dtype)
    yield "bits_variance", passes.variance(bits), (on * off).to(x.dtype)
    yield "bits_variance_backward", passes.variance_backward(bits, g), (up * on * off * (off - on)).to(x.dtype)
    value = on * (softplus(-z) - softplus(-w)) + off * (softplus(z) - softplus(w))
    yield "bits_kl", passes.kl(pair), value.to(x.dtype)
    dx, dz = passes.kl_backward(pair, g, _BOTH)
    yield "bits_kl_backward", dx, (up * on * off * (w - z)).to(x.dtype)
    yield "bits_kl_backward", dz, up * (other - on)
    y = (z > 0).to(wide)
    law = Bits(x, y, law=True)
    yield "bits_nll", passes.nll(law)[0], -_cost(w, y, 1.0).to(x.dtype)
    yield "bits_nll_backward", passes.nll_backward(law, g, None), (up * (y - on)).to(x.dtype)


def _reduced_bits(passes: Any, x: Tensor) -> Iterator[Result]:
    """Losses: a mean over all bits that are kept, and shares of rows."""
    wide, (rows, cols) = compute_dtype(x.dtype), x.shape
    w, keep = x.to(wide), (torch.arange(cols, device=x.device) % 3 > 0).expand(x.shape)
    y, weight = torch.sigmoid(w.flip(0, 1)), _ramp(1, 2, x.numel(), x).view(x.shape)
    on, off, counts = torch.sigmoid(w), torch.sigmoid(-w), weight * keep
    one, loss = w.new_ones(()), Bits(x, y, weight, None, keep, _POSITIVE, 2, False, UNIT_INTERVAL)
    out, saved, _ = passes.nll(loss)
    yield "bits_nll", out, (counts * _cost(w, y, _POSITIVE)).sum() / counts.sum()
    slope = counts * ((1 - y) * on - _POSITIVE * y * off) / counts.sum()
    yield "bits_nll_backward", passes.nll_backward(loss, one, saved), slope.to(x.dtype)
    share, g = Bits(x, None, weight, None, keep, _SHARE, 0, rows=rows), _ramp(0.5, 1, rows, x)
    out, saved = passes.share(share)
    part = counts / counts.sum(-1, keepdim=True)
    away = (part * on).sum(-1) - _SHARE
    yield "bits_share", out, away.square()
    slope = (2 * g * away).unsqueeze(-1) * part * on * off
    yield "bits_share_backward", passes.share_backward(share, g, saved), slope.to(x.dtype)


def _ramp(first: float, last: float, count: int, like: Tensor) -> Tensor:
    return torch.linspace(first, last, count, dtype=compute_dtype(like.dtype), device=like.device)


def _log_probs(x: Tensor, mask: Tensor) -> Tensor:
    """Of logits from -1 to 1. torch's log_softmax would wake threads, for milliseconds."""
    x = x.masked_fill(~mask, -torch.inf)
    return x - x.exp().sum(-1, keepdim=True).log()


def _cost(x: Tensor, y: Tensor, positive: float) -> Tensor:
    return positive * y * softplus(-x) + (1 - y) * softplus(x)
