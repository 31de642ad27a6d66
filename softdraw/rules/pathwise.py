"""What a pathwise rule is, and the machinery of its draws, written once: sampling, masks, dtypes, autograd, torch.func,
compile, ``value=``.

A rule only maps one gradient to another. Here the exact sample is drawn, the rule is made its backward pass, and the
backward pass is made of differentiable operations, so that second derivatives, vmap and torch.compile come for free.
Nothing is saved but the logits and the sample; noise is made again from the seed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from softdraw.arguments import compute_dtype, row_ids
from softdraw.numerics import masked, one_hot
from softdraw.operators import draws
from softdraw.rules.conditional_noise import Noise


class Pathwise(ABC):
    """A rule for ``draw`` and ``expect``: the sample is exact, and ``vjp`` says what gradient passes back through it.

    ``vjp`` sees tensors of shape ``(samples, *batch, C)`` in float32 or float64, forbidden categories at -inf logits
    and with zero gradient; dim, mask, dtype, sampling and autograd are the machinery's.
    It must be differentiable, linear in ``grad``, O(C) in memory a row, and must draw nothing but from ``noise``.
    """

    @abstractmethod
    def vjp(self, logits: Tensor, sample: Tensor, grad: Tensor, noise: Noise) -> Tensor:
        """The gradient for ``logits`` given the one-hot ``sample`` and the gradient that arrives at it."""

    def forward(self, logits: Tensor, sample: Tensor, noise: Noise) -> Tensor | None:
        """What is returned in place of the exact sample, differentiable; None (the default) for the sample itself."""
        return None

    def operation(self, logits: Tensor, seed: Tensor, rows: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """One plain draw by an operation of the library that is this very rule, where there is one; else None."""
        return None


def sample(logits: Tensor, seed: Tensor, rows: Tensor | None, mask: Tensor | None, samples: int) -> Tensor:
    """Exact one-hots ``(samples, *batch, C)`` in the dtype of the logits; a row with NaN or +inf is NaN."""
    logits = logits.detach()
    index = draws.gumbel_max(logits, seed, rows, mask, samples, 0)
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
