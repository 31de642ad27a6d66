"""The Gumbel-softmax (concrete) relaxation, the one rule whose forward value is soft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from softdraw.arguments import KernelRule
from softdraw.numerics import value_of
from softdraw.operators.softmax import softmax
from softdraw.rules.checks import check_tau
from softdraw.rules.conditional_noise import Noise
from softdraw.rules.needs import Family
from softdraw.rules.pathwise import Pathwise


@dataclass(frozen=True, eq=False)
class GumbelSoftmax(Pathwise):
    r"""A relaxed sample on the simplex with its own exact gradient.

    .. math:: y = \mathrm{softmax}((\theta + G) / \tau), \qquad \hat g = J(y)\, g / \tau

    Args:
        tau: > 0, a number or a tensor, one per row or learned (it then gets its own gradient).

    Gradient:
        Exact for E[f(y)], so biased for the discrete E[f(D)]; the bias vanishes with tau, the variance grows as 1/tau.

    Raises:
        TypeError, ValueError: tau is no positive number.

    Example:
        >>> law = softdraw.OneHotCategorical(torch.tensor([1.0, 2.0, 3.0]))
        >>> softdraw.draw(law, softdraw.GumbelSoftmax(tau=0.5), seed=0)
        tensor([0.1062, 0.0451, 0.8488])

    Source:
        Jang, Gu and Poole (2017), "Categorical reparameterization with Gumbel-softmax"; Maddison, Mnih and Teh (2017),
        "The concrete distribution".
    """

    tau: float | Tensor = 1.0

    def __new__(cls, *args: Any, **named: Any) -> GumbelSoftmax:
        if len(args) > 1 or named.keys() - {"tau"}:
            raise TypeError(
                f"softdraw.GumbelSoftmax is a gradient rule, and takes tau alone, got {[*args, *named]}: "
                "the module, which draws from logits, is softdraw.nn.GumbelSoftmax"
            )
        return super().__new__(cls)

    def __call__(self, *args: Any, **named: Any) -> Tensor:
        raise TypeError(
            "softdraw.GumbelSoftmax is a gradient rule: write softdraw.draw(law, softdraw.GumbelSoftmax(tau)); "
            "the module, which draws from logits, is softdraw.nn.GumbelSoftmax"
        )

    def __post_init__(self) -> None:
        check_tau(self, self.tau, learned=True)

    def kernel(self) -> KernelRule:
        return KernelRule("gumbel_softmax", self.tau)

    def forward(self, law: Family, sample: Tensor, noise: Noise) -> Tensor:
        # The noise is a constant, so the scores have the gradient of the logits. It is not subtracted and added again:
        # at logits of opposite signs near the largest number the difference would overflow.
        return softmax(value_of(noise.scores(law.theta, sample), law.theta), self.tau)
