"""What a pathwise rule is, and the machinery of its formula, written once: autograd, torch.func, second derivatives.

A rule only maps one gradient to another. Here a sample gets the rule as its backward pass, made of differentiable
operations, so that second derivatives, vmap and forward mode come for free. Nothing is saved but the natural parameters
and the sample; noise is made again from the seed. Where the library has the rule's backward pass as one operation,
``fused`` takes the place of what is here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from softdraw.arguments import KernelRule, row_ids
from softdraw.numerics import broken, softmax_vjp
from softdraw.operators.softmax import softmax
from softdraw.private_torch import forward_mode
from softdraw.rules.conditional_noise import Noise
from softdraw.rules.needs import Family, Need
from softdraw.rules.rule import Rule


class Pathwise(Rule):
    """A rule for ``draw`` and ``expect``: the sample is exact, and ``vjp`` says what gradient passes back through it.

    ``needs`` says which laws the rule serves. The rule sees the law as ``law.theta`` (natural parameters, categories
    last, -inf where forbidden), ``law.mean`` and ``law.covariance_product``, in float32 or float64 and of shape
    ``(samples, *batch, C)``. The machinery handles dim, mask, dtype, sampling and autograd.

    A rule defines ``vjp``; one whose sample is relaxed defines ``forward`` in its place.
    """

    needs: ClassVar[Need] = Need.NOISE
    serves: ClassVar[str] = "for softdraw.draw(law, rule)"

    def vjp(self, law: Family, sample: Tensor, grad: Tensor, noise: Noise) -> Tensor:
        """The gradient for ``law.theta`` given the ``sample`` and the gradient that arrives at it.

        It must be differentiable, linear in ``grad``, O(C) in memory a row, take all noise from ``noise``, and ignore
        shifts of theta as every law does: over the categories the result must sum to zero, and adding a constant to
        theta must not change it. ``grad`` is zero at forbidden categories.
        """
        raise NotImplementedError(f"{type(self).__name__} has no vjp: its relaxed sample is differentiated as it is")

    def forward(self, law: Family, sample: Tensor, noise: Noise) -> Tensor | None:
        """What is returned in place of the exact sample, differentiable; None (the default) for the sample itself."""
        return None

    @property
    def relaxes(self) -> bool:
        """Whether samples are relaxed: the rule has a ``forward`` of its own."""
        return type(self).forward is not Pathwise.forward

    def kernel(self) -> KernelRule | None:
        """The operation of the library that is this rule, for one-hots and bits, where there is one; else None."""
        return None


def check_drawn(rule: Pathwise, noise: Noise) -> None:
    """The sample is drawn, not given: for a rule whose samples have noise that a given one does not tell."""
    if not noise.drawn:
        raise ValueError(
            f"value was given with {type(rule).__name__}, which makes its sample from noise of its own: leave it out, "
            "or take a rule that keeps the law's samples, such as ZGR()"
        )


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
    if soft is not None:
        return soft.to(hard.dtype)
    return (_Dual if forward_mode() else _Draw).apply(theta, hard, seed, noise.rows, rule, family, drawn)


def gradient(
    rule: Pathwise, law: Family, hard: Tensor, arriving: Tensor, seed: Tensor, rows: Tensor, drawn: bool
) -> Tensor:
    """The rule's formula for ``law.theta``; differentiable, zero where theta forbids, and NaN in all of a NaN row."""
    theta = law.theta
    bad = broken(theta) if isinstance(law, OneHots) else theta.isnan().any(-1, keepdim=True)
    forbidden = (theta == -math.inf) & ~bad
    g = arriving.to(theta.dtype).masked_fill(forbidden, 0)  # whatever arrives there, 0 * inf included
    out = rule.vjp(law, hard.to(theta.dtype), g, Noise(seed, rows, drawn))
    return out.masked_fill(forbidden, 0)


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
        out = gradient(ctx.rule, ctx.family(theta), hard, grad_outputs[0], seed, rows, ctx.drawn)
        return out, None, None, None, None, None, None


class _Dual(_Draw):
    """Adds forward mode: a tangent goes through the transpose of the formula, which is linear in what arrives."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _Draw.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs[:4])

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        theta, hard, seed, rows = ctx.saved_tensors
        law, tangent = ctx.family(theta), tangents[0]

        def formula(arriving: Tensor) -> Tensor:
            return gradient(ctx.rule, law, hard, arriving, seed, rows, ctx.drawn)

        return torch.func.vjp(formula, torch.zeros_like(theta))[1](tangent)[0].to(hard.dtype)
