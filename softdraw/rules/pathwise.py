"""What a pathwise rule is, and the machinery of its draws, written once: sampling, masks, dtypes, autograd, torch.func,
compile, ``value=``.

A rule only maps one gradient to another. Here the exact sample is drawn, the rule is made its backward pass, and the
backward pass is made of differentiable operations, so that second derivatives, vmap and torch.compile come for free.
Nothing is saved but the natural parameters and the sample; noise is made again from the seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from softdraw.arguments import compute_dtype, row_ids
from softdraw.numerics import masked, one_hot, softmax_vjp
from softdraw.operators import draws
from softdraw.operators.softmax import softmax
from softdraw.rules.conditional_noise import Noise
from softdraw.rules.needs import Family, Need
from softdraw.rules.rule import Rule


class Pathwise(Rule):
    """A rule for ``draw`` and ``expect``: the sample is exact, and ``vjp`` says what gradient passes back through it.

    ``needs`` says which laws the rule serves. The rule sees the law as ``law.theta`` (natural parameters, categories
    last, -inf where forbidden), ``law.mean`` and ``law.covariance_product``, in float32 or float64 and of shape
    ``(samples, *batch, C)``. Dim, mask, dtype, sampling and autograd are the machinery's.

    A rule defines ``vjp``; one whose sample is relaxed defines ``forward`` in its place.
    """

    needs: ClassVar[Need] = Need.NOISE

    def vjp(self, law: Family, sample: Tensor, grad: Tensor, noise: Noise) -> Tensor:
        """The gradient for ``law.theta`` given the ``sample`` and the gradient that arrives at it.

        It must be differentiable, linear in ``grad``, O(C) in memory a row, draw nothing but from ``noise``, and leave
        out what no law sees: a shift of theta changes nothing, so over the categories the result must sum to zero, and
        it must not change where a constant is added to theta. ``grad`` is zero at forbidden categories.
        """
        raise NotImplementedError(f"{type(self).__name__} has no vjp: its relaxed sample is differentiated as it is")

    def forward(self, law: Family, sample: Tensor, noise: Noise) -> Tensor | None:
        """What is returned in place of the exact sample, differentiable; None (the default) for the sample itself."""
        return None

    def operation(self, logits: Tensor, seed: Tensor, rows: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """One plain draw by an operation of the library that is this very rule, where there is one; else None."""
        return None


class OneHots:
    """One-hots with natural parameters theta ``(..., C)``: a categorical law as a rule sees it."""

    def __init__(self, theta: Tensor, tau: float | Tensor = 1.0) -> None:
        self.theta, self._tau, self._mean = theta, tau, None

    @property
    def mean(self) -> Tensor:
        """The probabilities."""
        if self._mean is None:
            self._mean = softmax(self.theta, self._tau)
        return self._mean

    def covariance_product(self, grad: Tensor) -> Tensor:
        """J(p) g = p (g - <p, g>)."""
        return softmax_vjp(self.mean, grad)

    def tempered(self, tau: float | Tensor) -> OneHots:
        """softmax(theta / tau); the quotient itself, which may overflow, is never formed."""
        return OneHots(self.theta, tau)


def sample(logits: Tensor, seed: Tensor, rows: Tensor | None, mask: Tensor | None, samples: int) -> Tensor:
    """Exact one-hots ``(samples, *batch, C)`` in the dtype of the logits; a row with NaN or +inf is NaN."""
    logits = logits.detach()
    dtype = compute_dtype(logits.dtype)
    index = draws.gumbel_max(logits, seed, rows, mask, samples, 0)
    top = masked(logits if logits.dtype.itemsize > 1 else logits.to(dtype), mask).amax(-1, keepdim=True)
    hard = one_hot(index, logits.shape[-1], dtype)
    return hard.masked_fill(top.isnan() | (top == math.inf), math.nan).to(logits.dtype)


def draw(
    rule: Pathwise,
    logits: Tensor,
    mask: Tensor | None,
    seed: Tensor,
    rows: Tensor | None,
    samples: int,
    value: Tensor | None,
) -> Tensor:
    """``(samples, *batch, C)``: exact one-hots, or ``value`` (of that shape), with the gradient of the rule."""
    if value is None and samples == 1:
        y = rule.operation(logits, seed, rows, mask)
        if y is not None:
            return y.unsqueeze(0)
    hard = sample(logits, seed, rows, mask, samples) if value is None else value.detach()
    x = masked(logits.to(compute_dtype(logits.dtype)), mask).expand(hard.shape)
    return attach(rule, OneHots, x, hard, seed, rows, value is None)


def attach(
    rule: Pathwise,
    family: Callable[[Tensor], Family],
    theta: Tensor,
    hard: Tensor,
    seed: Tensor,
    rows: Tensor | None,
    drawn: bool,
) -> Tensor:
    """The samples ``hard`` with the gradient of the rule.

    ``theta`` has their shape ``(samples, *batch, C)``, in the compute dtype and -inf where forbidden; ``family`` makes
    of it the law that the rule sees, and ``drawn`` says that the samples are those of the seed.
    """
    ids = row_ids(theta.shape[1:-1], theta.device) if rows is None else rows
    noise = Noise(seed, ids.unsqueeze(0), drawn)
    soft = rule.forward(family(theta), hard.to(theta.dtype), noise)
    return _Draw.apply(theta, hard, seed, noise.rows, rule, family, drawn) if soft is None else soft.to(hard.dtype)


class _Draw(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        theta: Tensor, hard: Tensor, seed: Tensor, rows: Tensor, rule: Pathwise, family: Callable, drawn: bool
    ) -> Tensor:
        return hard.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        theta, hard, seed, rows, ctx.rule, ctx.family, ctx.drawn = inputs
        ctx.save_for_backward(theta, hard, seed, rows)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple:
        theta, hard, seed, rows = ctx.saved_tensors
        forbidden = theta == -math.inf
        arriving = grad_outputs[0].to(theta.dtype).masked_fill(forbidden, 0)  # whatever arrives there, 0 * inf included
        noise = Noise(seed, rows, ctx.drawn)
        out = ctx.rule.vjp(ctx.family(theta), hard.to(theta.dtype), arriving, noise)
        return out.masked_fill(forbidden, 0), None, None, None, None, None, None
