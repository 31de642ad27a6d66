"""The draws that rules differentiate and the gradients of the rules, in plain torch: what a fast body must equal.

``samples`` draws are made, ``(samples, *batch, C)``, or one without that dimension where it is None. A gradient has the
shape of the draws. The formulas are those of ``softdraw/rules/``; tests compare the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from softdraw import noise
from softdraw.arguments import Fields, KernelRule, Tau, compute_dtype, row_ids
from softdraw.kernels.reference.draws import checked, index, soft
from softdraw.numerics import broken, condition, masked, one_hot, softmax, softmax_vjp, two_categories


def hard_index(draw: Fields, samples: int | None, index: Callable = index) -> tuple[Tensor, Tensor]:
    """The exact draw as a one-hot and as an index, ``(samples, *batch, C)`` and ``(samples, *batch)``.

    ``index`` is the body's own operation of that name.
    """
    logits, mask = draw[0], draw[4]
    at = index(draw, 1 if samples is None else samples)
    at = at[0] if samples is None else at
    bad = broken(masked(logits if logits.dtype.itemsize > 1 else logits.to(torch.float32), mask))
    y = one_hot(at, logits.shape[-1], compute_dtype(logits.dtype))
    return y.masked_fill(bad, math.nan).to(logits.dtype), at


def rule_backward(draw: Fields, grad: Tensor, at: Tensor, rule: KernelRule, given: bool) -> Tensor:
    """The gradient of a rule for the logits, given the index of every sample and the gradient that arrives at it; NaN
    in every category of a row that is NaN.

    ``given`` says that the samples do not come from the noise of the seed.
    """
    logits, tau, _, _, mask, _ = draw
    dtype = compute_dtype(logits.dtype)
    s = masked(logits.to(dtype), mask).expand(grad.shape)
    forbidden = s == -math.inf
    g, hard = grad.to(dtype).masked_fill(forbidden, 0), one_hot(at, s.shape[-1], dtype)
    t = checked(tau, dtype) if isinstance(tau, Tensor) else tau
    dx = _rao(draw, s, hard, g, rule, t, given) if rule.noisy else _closed(s, hard, g, rule, t)
    return dx.masked_fill(forbidden, 0).masked_fill(broken(s), math.nan).to(grad.dtype)


def bits(draw: Fields, samples: int | None, index: Callable = index) -> Tensor:
    """Bits, 1 with probability sigmoid(theta): draws of two categories with the logits 0 and theta."""
    theta = draw[0]
    two = _two_categories(draw)
    at = index(two, 1 if samples is None else samples)
    b = (at[0] if samples is None else at).clamp_min(0).to(compute_dtype(theta.dtype))
    return b.masked_fill(two[0][..., 1].isnan(), math.nan).to(theta.dtype)


def soft_bits(draw: Fields, stretch: float, soft: Callable = soft) -> Tensor:
    """Relaxed bits, sigmoid((theta + G_1 - G_0) / tau), stretched from (0, 1) to (-stretch, 1 + stretch) and clipped:
    the second of two relaxed categories."""
    y = soft(_two_categories(draw))[..., 1]
    return (y * (1 + 2 * stretch) - stretch).clamp(0, 1).to(draw[0].dtype)


def bits_backward(draw: Fields, grad: Tensor, sample: Tensor, rule: KernelRule, given: bool) -> Tensor:
    """The gradient of a rule for theta: that of two categories, of which the gradient that arrives has the second."""
    theta, wide = draw[0], compute_dtype(grad.dtype)
    both = torch.stack((torch.zeros_like(grad, dtype=wide), grad.to(wide)), -1)
    at = torch.where(sample.isnan(), -1, sample.nan_to_num().long())
    dx = rule_backward(_two_categories(draw), both, at, rule, given)[..., 1]
    return dx.masked_fill(theta == math.inf, 0).to(grad.dtype)


def _two_categories(draw: Fields) -> Fields:
    """A draw of bits, whose tau, seed and rows are one for each bit, as one of two categories."""
    theta, tau, seed, rows, mask, _ = draw
    two = two_categories(theta.to(compute_dtype(theta.dtype)), mask)
    return two, _per_row(tau), _per_row(seed), _per_row(rows), None, 0


def _per_row(x: Any) -> Any:
    return x.unsqueeze(-1) if isinstance(x, Tensor) and x.dim() else x


def _closed(s: Tensor, hard: Tensor, g: Tensor, rule: KernelRule, tau: Tau) -> Tensor:
    if rule.name == "gapped":
        top = s.amax(-1, keepdim=True)
        top = torch.where(top == -math.inf, 0, top)
        s = torch.where(hard > 0, 0, (s - top).clamp_max(-rule.gap))  # less the largest logit, which may be huge
    if rule.name in ("gapped", "straight_through"):
        return softmax_vjp(softmax(s, tau), g) / tau
    p = softmax(s)
    if rule.name == "reinmax":
        return 2 * softmax_vjp((softmax(s, tau) + hard) / 2, g) - softmax_vjp(p, g) / 2
    d = hard - p
    return (softmax_vjp(p, g) + (g * d).sum(-1, keepdim=True) * d) / 2


def _rao(draw: Fields, s: Tensor, hard: Tensor, g: Tensor, rule: KernelRule, tau: Tau, given: bool) -> Tensor:
    """The draw's own noise, unless the sample was given; then one block at a time of the noise that made no draw."""
    logits, _, seed, rows, _, col_start = draw
    assert seed is not None
    cols, p = logits.shape[-1], softmax(s)
    ids = row_ids(logits.shape[:-1], logits.device) if rows is None else rows
    samples = s.shape[0] if s.dim() > logits.dim() else 1
    stream = torch.arange(samples, device=s.device).view(-1, *[1] * (s.dim() - 1))
    reinmax = rule.name == "reinmax_rao"
    top = s.amax(-1, keepdim=True)  # taken off, for beside a huge logit the noise itself would be lost
    conditioned = ((p + hard) / 2).log() if reinmax else s - torch.where(top.isinf(), 0, top)
    total = torch.zeros_like(s)
    own = not reinmax and not given
    if own:
        made = noise.gumbel(seed, ids, cols, col_start, stream, s.dtype).expand_as(s)
        total = softmax_vjp(softmax(s + made, tau), g)
    more = noise.conditional(seed)
    for block in range(rule.draws - own):
        made = noise.gumbel(more, ids, cols, block * cols, stream, s.dtype).expand_as(s)
        total = total + softmax_vjp(softmax(condition(conditioned, hard, made), tau), g)
    mean = total / (rule.draws * tau)
    return 2 * mean - softmax_vjp(p, g) / 2 if reinmax else mean
