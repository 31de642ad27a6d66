"""The laws of gates, one class each: how one is drawn, decided, and how likely it is to be open."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from softdraw import kernels
from softdraw.laws import Bernoulli
from softdraw.nn.noise import logistic, normal
from softdraw.private_torch import quick_apply
from softdraw.rules.pathwise import Pathwise
from softdraw.tensors import is_plain


class GateLaw(Protocol):
    """What ``Gate`` asks of a law; theta is float32 or float64 and of the shape of the gates."""

    start: float  # of the parameter

    def draw(self, theta: Tensor, rule: Pathwise | None, mask: Tensor | None, seed: Tensor, rows: Tensor) -> Tensor:
        """Gates from 0 to 1, differentiable."""
        ...

    def decide(self, theta: Tensor) -> Tensor:
        """The gates of evaluation."""
        ...

    def open_logits(self, theta: Tensor) -> Tensor:
        """log P(z > 0) - log P(z = 0)."""
        ...


class HardConcrete:
    r"""z = min(1, max(0, s (zeta - gamma) + gamma)), s = sigmoid((log u - log(1 - u) + theta) / beta).

    Louizos, Welling and Kingma (2018), eqs. 10 to 13, with the constants of their section 4.
    """

    beta, gamma, zeta = 2 / 3, -0.1, 1.1
    start = 0.0
    closed = beta * math.log(-gamma / zeta)  # with zero noise, the theta at which a gate opens

    def draw(self, theta: Tensor, rule: Pathwise | None, mask: Tensor | None, seed: Tensor, rows: Tensor) -> Tensor:
        """The stretched and clipped concrete variable of keyed logistic noise."""
        if is_plain(theta) and not seed.dim():
            ids = None if rows is None else rows.squeeze(-1)
            return _one_pass(theta, (self.beta, seed, ids, None, 0))
        return self.stretched(torch.sigmoid((logistic(theta, seed, rows) + theta) / self.beta))

    def decide(self, theta: Tensor) -> Tensor:
        """Equation 13: without noise, and without beta."""
        return self.stretched(torch.sigmoid(theta))

    def open_logits(self, theta: Tensor) -> Tensor:
        """Equation 12: P(z > 0) = sigmoid(theta - beta log(-gamma / zeta))."""
        return theta - self.closed

    def stretched(self, s: Tensor) -> Tensor:
        """From (0, 1) to (gamma, zeta), and clipped."""
        return (s * (self.zeta - self.gamma) + self.gamma).clamp(0, 1)


_of_clamp = torch.ops.aten.hardtanh_backward.default
_of_sigmoid = torch.ops.aten.sigmoid_backward.default


class _HardConcrete(torch.autograd.Function):
    """The same as one node, which the kernels draw. Only z is kept: inside of (0, 1) it gives s, and beyond there is no
    slope."""

    @staticmethod
    def forward(ctx: Any, theta: Tensor, rest: tuple) -> Tensor:
        z = kernels.body_for(theta).soft_bits((theta.contiguous(), *rest), -HardConcrete.gamma)
        ctx.save_for_backward(z)
        return z

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        # s (1 - s) (zeta - gamma) / beta = (z - gamma) (zeta - z) / (beta (zeta - gamma)), and gamma + zeta = 1, so
        # (z - gamma) (zeta - z) = z (1 - z) - gamma zeta.
        (z,), gamma, zeta = ctx.saved_tensors, HardConcrete.gamma, HardConcrete.zeta
        inside = _of_clamp(grad_outputs[0], z, 0, 1)
        slope = _of_sigmoid(inside, z).add_(inside, alpha=-gamma * zeta)
        return slope.mul_(1 / (HardConcrete.beta * (zeta - gamma))), None


_one_pass = quick_apply(_HardConcrete, _HardConcrete.backward)


class Gaussian:
    """z = min(1, max(0, theta + sigma eps)): Yamada et al. (2020), eq. 4, with the sigma of their experiments."""

    sigma = 0.5
    start = 0.5

    def draw(self, theta: Tensor, rule: Pathwise | None, mask: Tensor | None, seed: Tensor, rows: Tensor) -> Tensor:
        """The clipped mean plus keyed normal noise."""
        eps = normal(theta.unsqueeze(-1), seed, rows).squeeze(-1)
        return (theta + self.sigma * eps).clamp(0, 1)

    def decide(self, theta: Tensor) -> Tensor:
        """The clipped mean."""
        return theta.clamp(0, 1)

    def open_logits(self, theta: Tensor) -> Tensor:
        """P(z > 0) is the normal distribution function of theta / sigma."""
        x = theta / self.sigma
        return torch.special.log_ndtr(x) - torch.special.log_ndtr(-x)


class Bit:
    """z ~ Bernoulli(sigmoid(theta)), with the gradient of a rule."""

    start = 0.0

    def draw(self, theta: Tensor, rule: Pathwise | None, mask: Tensor | None, seed: Tensor, rows: Tensor) -> Tensor:
        """Exact bits."""
        return Bernoulli(theta, mask).draw_with(rule, (), None, seed, rows)  # pyright: ignore[reportArgumentType]

    def decide(self, theta: Tensor) -> Tensor:
        """1 where it is likelier."""
        return Bernoulli(theta).mode

    def open_logits(self, theta: Tensor) -> Tensor:
        """theta itself."""
        return theta


LAWS: dict[str, GateLaw] = {"hard-concrete": HardConcrete(), "bernoulli": Bit(), "gaussian": Gaussian()}
