r"""Truncated laws: which categories are kept, by a bound on the logits, so that equal logits are kept or left together.

Every bound is one on z = (x - max x) / T, the tempered logits less the largest, and each looks at what the one before
it kept, in the order top_k, top_p, min_p:

    top_k   z >= the k-th largest z
    top_p   z >= the largest bound for which what is kept has probability top_p at least, p = softmax(z)
    min_p   exp(z) >= min_p, which is p >= min_p max p

The largest logit is always kept. Probabilities and their sums are taken in float64.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from softdraw.arguments import Tau, compute_dtype
from softdraw.checks import count, scalar
from softdraw.numerics import masked
from softdraw.tensors import is_plain

_CHUNK = 2**22  # logits that are sorted at once


Bounds = tuple[int | None, float | None, float | None]  # top_k, top_p, min_p; one that keeps everything is None


def check_bounds(top_k: int | None, top_p: float | None, min_p: float | None) -> Bounds:
    """The three bounds, after a check of each."""
    if top_k is not None:
        top_k = count("top_k", top_k, 1, "how many categories are kept")
    if top_p is not None:
        top_p = scalar("top_p", top_p)
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p must be greater than 0 and at most 1, got {top_p}: 1 or None keeps everything")
    if min_p is not None:
        min_p = scalar("min_p", min_p)
        if not 0 <= min_p <= 1:
            raise ValueError(f"min_p must be from 0 to 1, got {min_p}: it is a share of the largest probability")
    return top_k, None if top_p == 1 else top_p, min_p or None


@torch.no_grad()
def kept(x: Tensor, mask: Tensor | None, temperature: Tau, bounds: Bounds) -> Tensor | None:
    """The mask of what may be drawn, of the shape of ``x`` (categories last); ``mask`` itself where nothing bounds."""
    if bounds == (None, None, None):
        return mask
    if x.dim() < 2 or not is_plain(x) or x.numel() <= _CHUNK:
        return _kept(x, mask, temperature, bounds)
    out = torch.empty(x.shape, dtype=torch.bool, device=x.device)
    step = _CHUNK // x[0].numel()
    each = isinstance(temperature, Tensor) and temperature.dim() > 0
    for i in range(0, len(x), max(1, step)):
        part: Any = slice(i, i + step) if step else i
        t = temperature[part] if each else temperature  # pyright: ignore[reportIndexIssue]
        out[part] = kept(x[part], None if mask is None else mask[part], t, bounds)  # pyright: ignore[reportArgumentType]
    return out


def _kept(x: Tensor, mask: Tensor | None, temperature: Tau, bounds: Bounds) -> Tensor:
    top_k, top_p, min_p = bounds
    x = masked(x.detach().to(compute_dtype(x.dtype)), mask)
    top = x.amax(-1, keepdim=True)
    keep = x > -math.inf
    if top_k is not None and top_k < x.shape[-1]:
        keep = keep & (x >= x.topk(top_k).values[..., -1:])
    if top_p is not None or min_p is not None:
        z = ((x - top).double() / temperature).masked_fill(x == top, 0)  # at temperature 0 it is 0 / 0
        if top_p is not None:
            keep = keep & (z >= _nucleus(z.masked_fill(~keep, -math.inf), top_p))
        if min_p is not None:
            keep = keep & (z.exp() >= min_p)
    keep = keep | ~top.isfinite()  # a row that has no draw is left as it is
    return keep if mask is None else keep & mask


def _nucleus(z: Tensor, top_p: float) -> Tensor:
    """The bound on z from which on the probability is ``top_p`` at least."""
    ordered = z.sort(-1, descending=True).values
    mass = ordered.exp().cumsum(-1)
    enough = mass >= top_p * mass[..., -1:]
    return ordered.gather(-1, enough.int().argmax(-1, keepdim=True))  # the first one that is enough
