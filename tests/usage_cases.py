"""What the passes over the usage of categories are compared on, and how far they may be from their formula in float64.

How "within 4 ulp" is measured: as in pass_cases.py. The slopes s of the loss for the mean law q are off by as much as
log q is, whose error is that of q relative to q: so p (s - sum p s) has the size of the slopes at log q = 1 too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softdraw.arguments import compute_dtype
from softdraw.kernels import pass_reference
from softdraw.kernels.native import USAGE
from softdraw.kernels.pass_reference import Rows

ULP = 4


def rows_of(shape: tuple[int, ...], dtype: torch.dtype, kept: str) -> Rows:
    """Logits, of which some are forbidden and some tie; NaN where a row does not count."""
    g = torch.Generator().manual_seed(sum(shape))
    x = (3 * torch.randn(shape, generator=g, dtype=torch.float64)).to(dtype)
    x[..., 1:] = x[..., 1:].masked_fill(torch.rand(x[..., 1:].shape, generator=g) < 0.1, -torch.inf)
    x[..., -1] = torch.where(torch.rand(x.shape[:-1], generator=g) < 0.2, x.amax(-1), x[..., -1])
    if kept == "all":
        return Rows(x)
    weight = torch.rand(shape[:-1], generator=g, dtype=torch.float64).to(compute_dtype(dtype))
    keep = torch.rand(shape[:-1], generator=g) < 0.7
    keep[..., 0] = True
    return Rows(x.masked_fill(~keep.unsqueeze(-1), torch.nan), keep=keep, weight=weight)


def wide(rows: Rows) -> Rows:
    operands: list[Any] = [t.double() if t is not None and t.is_floating_point() else t for t in rows]
    return Rows(*operands)


def assert_within(got: Tensor, true: Tensor, size: Tensor, ulp: int) -> None:
    compute = compute_dtype(got.dtype)
    allowed = ulp * (1 + (compute == torch.float64)) * torch.finfo(compute).eps * size + torch.finfo(got.dtype).tiny
    if got.dtype != compute:
        allowed = allowed + torch.finfo(got.dtype).eps * true.abs()
    different = (got.double() - true).abs()
    assert got.shape == true.shape
    assert bool((different <= allowed).all()), float((different / allowed).max())


def compare(passes: Any, rows: Rows, loss: int, grouped: bool, reduction: str, ulp: int = ULP) -> None:
    made = passes.usage(rows, reduction, loss, grouped)
    assert made is not None
    out, saved = made
    grad = torch.linspace(0.5, 2, max(out.numel(), 1)).to(out.dtype).view(out.shape)
    dx = passes.usage_backward(rows, grad, saved, reduction, (True, False), loss, grouped)[0]
    truth = wide(rows)
    x = truth.x.requires_grad_()
    each, total = pass_reference.usage(truth._replace(x=x), loss, grouped)
    true = pass_reference.reduced(each, total != 0, None, reduction)
    w = pass_reference.weights(x[..., 0], truth.keep, truth.weight).detach()
    over = tuple(range(int(grouped), w.dim()))
    p = pass_reference.log_probs_of(truth).detach()
    p, log_p = p.exp(), p.masked_fill(p == -torch.inf, 0)
    q = pass_reference.mean_row(p, w, over)
    k = q.shape[-1]
    h = -torch.special.xlogy(q, q.clamp_min(torch.finfo(out.dtype).tiny))
    tall = h.sum(-1, keepdim=True).exp() / k * (2 + q.clamp_min(torch.finfo(out.dtype).tiny).log().abs())
    slope = tall if loss == USAGE["Diversity"] else torch.full_like(tall, k)
    spread = (slope * q * (1 + log_p.abs().amax(tuple(range(int(grouped), p.dim() - 1))))).sum(-1) + 1
    assert_within(out, true.detach(), spread if reduction == "none" else spread.sum(), ulp)
    (want,) = torch.autograd.grad(true, x, grad.double())
    slope = slope.view(*slope.shape[:-1], *[1] * (p.dim() - slope.dim()), k)
    share = grad.max().double() * (w / w.sum(over, keepdim=True)).unsqueeze(-1)
    size = share * p * (1 + log_p.abs()) * (slope + (p * slope).sum(-1, keepdim=True))
    assert_within(dx, want, size.nan_to_num(0), ulp)
