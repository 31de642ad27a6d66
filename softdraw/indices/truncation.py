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
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from softdraw.arguments import Tau, a_row, compute_dtype, number_a_row
from softdraw.checks import INTEGERS, check_tensor, count, given, scalar
from softdraw.indices.temperature import by_row
from softdraw.numerics import masked
from softdraw.operators.operator import under_torch_func
from softdraw.private_torch import assert_later
from softdraw.tensors import is_dtensor, is_plain

_CHUNK = 2**22  # logits that are sorted at once


Bounds = tuple[int | Tensor | None, float | Tensor | None, float | Tensor | None]  # top_k, top_p, min_p; None: all

# name: what is legal, how an error says so, and what it adds
_RANGES: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "top_k": (lambda x: x >= 1, "at least 1", "how many categories are kept"),
    "top_p": (lambda x: (x > 0) & (x <= 1), "greater than 0 and at most 1", "1 or None keeps everything"),
    "min_p": (lambda x: (x >= 0) & (x <= 1), "from 0 to 1", "it is a share of the largest probability"),
}


def prepare_bounds(top_k: Any, top_p: Any, min_p: Any, logits: Tensor, dim: int) -> Bounds:
    """The three bounds as numbers or as tensors (categories last) that broadcast to the logits, after a check of each;
    None where all is kept."""
    k = None if top_k is None else _whole_number(top_k, logits, dim)
    p = None if top_p is None else _share("top_p", top_p, logits, dim)
    least = None if min_p is None else _share("min_p", min_p, logits, dim)
    return k, None if type(p) is float and p == 1 else p, None if type(least) is float and least == 0 else least


def _whole_number(top_k: Any, logits: Tensor, dim: int) -> int | Tensor:
    if not isinstance(top_k, Tensor):
        return count("top_k", top_k, 1, "how many categories are kept")
    check_tensor("top_k", top_k)
    if top_k.dtype not in INTEGERS:
        raise TypeError(f"top_k must be an int or a tensor of integers, got {given(top_k)}: write top_k.long()")
    placed = a_row("top_k", by_row(top_k, logits, dim), logits, dim)
    _check_values("top_k", top_k)
    return placed.long()


def _share(name: str, x: Any, logits: Tensor, dim: int) -> float | Tensor:
    if isinstance(x, Tensor) and (x.dim() or not is_plain(x)):
        placed = number_a_row(name, by_row(x, logits, dim), logits, dim)
        _check_values(name, x.detach())
        return placed.detach().double()
    x = scalar(name, x, "write a float, or a floating-point tensor with one for each row")
    if not _RANGES[name][0](x):
        raise _range_error(name, f"got {x}")
    return x


def _check_values(name: str, number: Any) -> None:
    """Checks values: now where they can be read, later on an accelerator and in compiled code. Under torch.func neither
    is possible, and a bound that is not legal keeps the largest logits alone."""
    x = number.to_local() if is_dtensor(number) else number
    if under_torch_func() or x.is_meta:
        return
    right = _RANGES[name][0](x)
    if not is_plain(x) or not x.is_cpu:
        assert_later(right.all(), f"{name} must be {_RANGES[name][1]}")
    elif not right.all():
        wrong = x[~right]
        raise _range_error(name, f"got {wrong[0].item()} in {len(wrong)} of {x.numel()} rows")


def _range_error(name: str, got: str) -> ValueError:
    _, allowed, why = _RANGES[name]
    return ValueError(f"{name} must be {allowed}, {got}: {why}")


@torch.no_grad()
def kept(x: Tensor, mask: Tensor | None, temperature: Tau, bounds: Bounds) -> Tensor | None:
    """The mask of what may be drawn, of the shape of ``x`` (categories last); ``mask`` itself where nothing bounds."""
    if all(bound is None for bound in bounds):
        return mask
    if x.dim() < 2 or not is_plain(x) or x.numel() <= _CHUNK:
        return _kept(x, mask, temperature, bounds)
    out = torch.empty(x.shape, dtype=torch.bool, device=x.device)
    step = _CHUNK // x[0].numel()
    for i in range(0, len(x), max(1, step)):
        part: Any = slice(i, i + step) if step else i
        t, *of_part = (b[part] if isinstance(b, Tensor) and b.dim() else b for b in (temperature, *bounds))
        out[part] = kept(x[part], None if mask is None else mask[part], t, tuple(of_part))  # pyright: ignore
    return out


def _kept(x: Tensor, mask: Tensor | None, temperature: Tau, bounds: Bounds) -> Tensor:
    top_k, top_p, min_p = bounds
    x = masked(x.detach().to(compute_dtype(x.dtype)), mask)
    top = x.amax(-1, keepdim=True)
    keep = x > -math.inf
    if top_k is not None:
        keep = keep & (x >= _largest(x, top_k))
    if top_p is not None or min_p is not None:
        z = ((x - top).double() / temperature).masked_fill(x == top, 0)  # at temperature 0 it is 0 / 0
        if top_p is not None:
            keep = keep & (z >= _nucleus(z.masked_fill(~keep, -math.inf), top_p))
        if min_p is not None:
            keep = keep & (z.exp() >= min_p)
    keep = keep | (x == top) | ~top.isfinite()  # a row that has no draw is left as it is
    return keep if mask is None else keep & mask


def _largest(x: Tensor, k: int | Tensor) -> Tensor:
    """The k-th largest of each row, or the smallest one of it."""
    if not isinstance(k, Tensor):
        return x.topk(min(k, x.shape[-1])).values[..., -1:]
    place = (k - 1).clamp(0, x.shape[-1] - 1).expand(*x.shape[:-1], 1)
    return x.sort(-1, descending=True).values.gather(-1, place)


def _nucleus(z: Tensor, top_p: float | Tensor) -> Tensor:
    """The bound on z from which on the probability is ``top_p`` at least."""
    ordered = z.sort(-1, descending=True).values
    mass = ordered.exp().cumsum(-1)
    enough = mass >= top_p * mass[..., -1:]
    bound = ordered.gather(-1, enough.int().argmax(-1, keepdim=True))  # the first one that is enough
    return bound.masked_fill(top_p == 1, -math.inf) if isinstance(top_p, Tensor) else bound  # whatever is rounded
