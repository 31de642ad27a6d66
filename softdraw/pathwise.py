"""The machinery of a pathwise draw, written once: sampling, masks, dtypes, autograd, torch.func, compile, ``value=``.

A rule only maps one gradient to another. Here the exact sample is drawn, the rule is made its backward pass, and the
backward pass is made of differentiable operations, so that second derivatives, vmap and torch.compile come for free.
Nothing is saved but the logits and the sample; noise is made again from the seed.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from softdraw import operations
from softdraw.arguments import compute_dtype, row_ids
from softdraw.rules.noise import Noise
from softdraw.rules.rule import Pathwise, one_hot


def sample(logits: Tensor, seed: Tensor, rows: Tensor | None, mask: Tensor | None, samples: int) -> Tensor:
    """Exact one-hots ``(samples, *batch, C)`` in the dtype of the logits; a row with NaN or +inf is NaN."""
    logits = logits.detach()
    index = operations.gumbel_max(logits, seed, rows, mask, samples, 0)
    top = masked(logits, mask).amax(-1, keepdim=True)
    return one_hot(index, logits.shape[-1], logits.dtype).masked_fill(top.isnan() | (top == math.inf), math.nan)


def draw(
    rule: Pathwise,
    logits: Tensor,
    mask: Tensor | None,
    seed: Tensor,
    rows: Tensor | None,
    samples: int,
    value: Tensor | None,
) -> Tensor:
    """``(samples, *batch, C)``: exact samples, or ``value`` (of that shape), with the gradient of the rule."""
    if value is None and samples == 1:
        y = rule.operation(logits, seed, rows, mask)
        if y is not None:
            return y.unsqueeze(0)
    hard = sample(logits, seed, rows, mask, samples) if value is None else value.detach()
    x = masked(logits.to(compute_dtype(logits.dtype)), mask).expand(hard.shape)
    ids = row_ids(logits.shape[:-1], logits.device) if rows is None else rows
    noise = Noise(seed, ids.unsqueeze(0), value is None)
    soft = rule.forward(x, hard.to(x.dtype), noise)
    return _Draw.apply(x, hard, seed, noise.rows, rule, noise.drawn) if soft is None else soft.to(logits.dtype)


def masked(logits: Tensor, mask: Tensor | None) -> Tensor:
    """The logits with forbidden categories at -inf."""
    return logits if mask is None else logits.masked_fill(~mask, -math.inf)


class _Draw(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, hard: Tensor, seed: Tensor, rows: Tensor, rule: Pathwise, drawn: bool) -> Tensor:
        return hard.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, hard, seed, rows, ctx.rule, ctx.drawn = inputs
        ctx.save_for_backward(x, hard, seed, rows)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple:
        x, hard, seed, rows = ctx.saved_tensors
        forbidden = x == -math.inf
        arriving = grad_outputs[0].to(x.dtype).masked_fill(forbidden, 0)  # whatever arrives there, 0 * inf included
        out = ctx.rule.vjp(x, hard.to(x.dtype), arriving, Noise(seed, rows, ctx.drawn))
        return out.masked_fill(forbidden, 0), None, None, None, None, None
