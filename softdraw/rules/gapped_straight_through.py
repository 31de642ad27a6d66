"""Gapped straight-through: a deterministic stand-in for the Gumbel noise, given the sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from softdraw.arguments import KernelRule, per_row
from softdraw.checks import number
from softdraw.numerics import softmax_vjp
from softdraw.operators.softmax import softmax
from softdraw.rules.checks import check_tau
from softdraw.rules.conditional_noise import Noise
from softdraw.rules.needs import Family
from softdraw.rules.pathwise import Pathwise


@dataclass(frozen=True, eq=False)
class GappedStraightThrough(Pathwise):
    r"""Straight-through Gumbel-softmax with the noise replaced by the least shift that makes the sample win by a gap.

    .. math:: \hat g = J(y)\, g / \tau, \quad y = \mathrm{softmax}((\theta + m_1 - m_2) / \tau), \quad
              m_1 = (\max \theta - \theta_x) D, \quad m_2 = \mathrm{relu}(\theta - \max \theta + \mathrm{gap}) (1 - D)

    Args:
        tau: > 0, a number or a tensor, one per row; 0.5 to 1 in the paper.
        gap: >= 0, in units of the logits; 1 in the paper.

    Gradient:
        Biased; no noise beyond the sample's, so less variance than straight-through Gumbel-softmax at that tau.

    Raises:
        TypeError, ValueError: tau is no positive number or requires a gradient; gap is no number >= 0.

    Example:
        >>> logits = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
        >>> y = softdraw.draw(softdraw.OneHotCategorical(logits), softdraw.GappedStraightThrough(tau=0.5), seed=0)
        >>> (y * torch.tensor([3.0, 0.0, 0.0])).sum().backward(); logits.grad
        tensor([ 0.0937, -0.0112, -0.0826])

    Source:
        Fan, Chi, Rush and Zhou (2022), "Training discrete deep generative models via gapped straight-through
        estimator".
    """

    tau: float | Tensor = 1.0
    gap: float = 1.0

    def __post_init__(self) -> None:
        check_tau(self, self.tau)
        name = "gap of GappedStraightThrough"
        if not 0 <= number(name, self.gap) < float("inf"):
            raise ValueError(f"{name} must be a finite number >= 0, got {self.gap}: the paper's is 1.0")

    def kernel(self) -> KernelRule:
        return KernelRule("gapped", self.tau, gap=float(self.gap))

    def vjp(self, law: Family, sample: Tensor, grad: Tensor, noise: Noise) -> Tensor:
        logits = law.theta
        top = logits.amax(-1, keepdim=True)
        top = torch.where(top == -torch.inf, 0, top)
        # theta + m1 - m2, less its maximum: beside a huge maximum the gap itself would be lost.
        shifted = torch.where(sample > 0, 0, (logits - top).clamp_max(-self.gap))
        return softmax_vjp(softmax(shifted, self.tau), grad) / per_row(self.tau, logits)
