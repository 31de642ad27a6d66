"""Straight-through Gumbel-softmax, with its temperature decoupled where wanted."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from softdraw.arguments import KernelRule, per_row
from softdraw.numerics import softmax_vjp
from softdraw.operators.softmax import softmax
from softdraw.rules.checks import check_tau
from softdraw.rules.conditional_noise import Noise
from softdraw.rules.needs import Family
from softdraw.rules.pathwise import Pathwise


@dataclass(frozen=True, eq=False)
class StraightThroughGumbel(Pathwise):
    r"""The exact sample forward, the Gumbel-softmax's Jacobian at the same noise backward.

    .. math:: D = \mathrm{onehot} \arg\max_j (\theta_j + G_j), \qquad \hat g = J(y)\, g / \tau,
              \quad y = \mathrm{softmax}((\theta + G) / \tau)

    The same computation as ``softdraw.gumbel_softmax(logits, tau, hard=True)``.

    Args:
        tau: > 0, a number or a tensor, one per row.
        backward_tau: the temperature of the gradient, where it differs from ``tau``. The forward value is hard, so
            ``tau`` then has no effect.

    Gradient:
        Biased; the bias falls and the variance explodes as tau tends to 0.

    Raises:
        TypeError, ValueError: a temperature is no positive number, or requires a gradient.

    Example:
        >>> logits = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
        >>> y = softdraw.draw(softdraw.OneHotCategorical(logits), softdraw.StraightThroughGumbel(tau=1.0), seed=0)
        >>> y.detach()
        tensor([0., 0., 1.])
        >>> (y * torch.tensor([3.0, 0.0, 0.0])).sum().backward(); logits.grad
        tensor([ 0.5202, -0.0974, -0.4228])

    Source:
        Jang, Gu and Poole (2017), "Categorical reparameterization with Gumbel-softmax", for the estimator;
        arXiv 2410.13331 (2024), for the second temperature.
    """

    tau: float | Tensor = 1.0
    backward_tau: float | Tensor | None = None

    def __post_init__(self) -> None:
        check_tau(self, self.tau)
        if self.backward_tau is not None:
            check_tau(self, self.backward_tau, "backward_tau")

    @property
    def _tau(self) -> float | Tensor:
        return self.tau if self.backward_tau is None else self.backward_tau

    def kernel(self) -> KernelRule:
        return KernelRule("gumbel_rao", self._tau)

    def vjp(self, law: Family, sample: Tensor, grad: Tensor, noise: Noise) -> Tensor:
        y = softmax(noise.scores(law.theta, sample), self._tau)
        return softmax_vjp(y, grad) / per_row(self._tau, law.theta)
