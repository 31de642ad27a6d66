"""ReinMax: Heun's second-order step in place of straight-through's first-order one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from softdraw.arguments import KernelRule
from softdraw.numerics import softmax_vjp
from softdraw.operators.softmax import softmax
from softdraw.rules.checks import check_tau
from softdraw.rules.conditional_noise import Noise
from softdraw.rules.needs import Family
from softdraw.rules.pathwise import Pathwise


@dataclass(frozen=True, eq=False)
class ReinMax(Pathwise):
    r"""The second-order straight-through estimator.

    .. math:: \hat g = 2 J\!\left(\tfrac12 (\pi_\tau + D)\right) g - \tfrac12 J(\pi)\, g

    Args:
        tau: > 0, a number or a tensor, one per row; 1 to 1.5 in the paper, where larger values trade bias for variance.

    Gradient:
        At tau = 1 unbiased where f is quadratic in the sample, and equal to ``ZGR``; biased otherwise.

    Raises:
        TypeError, ValueError: tau is no positive number, or requires a gradient.

    Example:
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> y = softdraw.draw(softdraw.OneHotCategorical(logits), softdraw.ReinMax(tau=1.1), seed=0)
        >>> (y * torch.tensor([3.0, 0.0, 0.0])).sum().backward(); logits.grad
        tensor([ 1.0000, -0.5000, -0.5000])

    Source:
        Liu, Dong, Liu, Yu and Gao (2023), "Bridging discrete and backpropagation: straight-through and beyond".
    """

    tau: float | Tensor = 1.0

    def __post_init__(self) -> None:
        check_tau(self, self.tau)

    def kernel(self) -> KernelRule:
        return KernelRule("reinmax", self.tau)

    def vjp(self, law: Family, sample: Tensor, grad: Tensor, noise: Noise) -> Tensor:
        middle = (softmax(law.theta, self.tau) + sample) / 2
        return 2 * softmax_vjp(middle, grad) - law.covariance_product(grad) / 2
