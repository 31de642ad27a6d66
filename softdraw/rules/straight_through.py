"""The straight-through estimator."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from softdraw.arguments import KernelRule, per_row
from softdraw.rules.checks import check_tau
from softdraw.rules.conditional_noise import Noise
from softdraw.rules.needs import Family, Need
from softdraw.rules.pathwise import Pathwise


@dataclass(frozen=True, eq=False)
class StraightThrough(Pathwise):
    r"""The exact sample forward, the softmax's Jacobian backward.

    .. math:: \hat g = J(\pi_\tau)\, g / \tau, \qquad \pi_\tau = \mathrm{softmax}(\theta / \tau)

    with the covariance of the law for J, so it serves every exponential family. For k of n items it is SIMPLE.

    Args:
        tau: > 0, a number or a tensor, one per row. It changes the gradient only, never the law.

    Gradient:
        Unbiased where f is linear in the sample (tau = 1), biased otherwise; depends on the sample only through g, so
        its variance is the lowest of all rules.

    Raises:
        TypeError, ValueError: tau is no positive number, or requires a gradient.

    Example:
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> y = softdraw.draw(softdraw.OneHotCategorical(logits), softdraw.StraightThrough(), seed=0)
        >>> (y * torch.tensor([3.0, 0.0, 0.0])).sum().backward(); logits.grad
        tensor([ 0.6667, -0.3333, -0.3333])

    Source:
        Bengio, Léonard and Courville (2013), "Estimating or propagating gradients through stochastic neurons"; Ahmed,
        Zeng, Niepert and Van den Broeck (2023), "SIMPLE: a gradient estimator for k-subset sampling".
    """

    tau: float | Tensor = 1.0
    needs = Need.FAMILY

    def __post_init__(self) -> None:
        check_tau(self, self.tau)

    def kernel(self) -> KernelRule:
        return KernelRule("straight_through", self.tau)

    def vjp(self, law: Family, sample: Tensor, grad: Tensor, noise: Noise) -> Tensor:
        return law.tempered(self.tau).covariance_product(grad) / per_row(self.tau, law.theta)
