"""Zero-temperature Gumbel-Rao, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from softdraw.arguments import KernelRule
from softdraw.rules.conditional_noise import Noise
from softdraw.rules.needs import Family, Need
from softdraw.rules.pathwise import Pathwise


@dataclass(frozen=True, eq=False)
class ZGR(Pathwise):
    r"""The limit of Gumbel-Rao at tau = 0: half straight-through, half a centred score. Nothing to tune.

    .. math:: \hat g = \tfrac12 J(\pi)\, g + \tfrac12 \langle g, D - \pi \rangle (D - \pi)

    with the covariance of the law for J and its mean for :math:`\pi`, so it serves every exponential family.
    For a bit b ~ Bernoulli(p) this is :math:`\tfrac12 (b (1 - p) + (1 - b) p)\, g`. Equal to ``ReinMax(tau=1)``.

    Gradient:
        Unbiased where f is quadratic in the sample, for every exponential family; biased from the third order on. With
        d = D - mean, the gradient of E[f] is E[d f], and for f = D'AD / 2 + b'D both sides equal
        Cov (A mean + b) + E[d d'A d] / 2.

    Example:
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> y = softdraw.draw(softdraw.OneHotCategorical(logits), softdraw.ZGR(), seed=0)
        >>> (y * torch.tensor([3.0, 0.0, 0.0])).sum().backward(); logits.grad
        tensor([ 1.0000, -0.5000, -0.5000])

    Source:
        Shekhovtsov (2023), "Cold analysis of Rao-Blackwellized straight-through Gumbel-softmax".
    """

    needs = Need.FAMILY

    def kernel(self) -> KernelRule:
        return KernelRule("zgr")

    def vjp(self, law: Family, sample: Tensor, grad: Tensor, noise: Noise) -> Tensor:
        d = sample - law.mean
        return (law.covariance_product(grad) + (grad * d).sum(-1, keepdim=True) * d) / 2
