"""REINFORCE with the mean of the other samples as each one's baseline."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from softdraw.rules.checks import check_count
from softdraw.rules.score_function import Objective, ScoreFunction, score


@dataclass(frozen=True, eq=False)
class LeaveOneOut(ScoreFunction):
    r"""The score-function estimator with leave-one-out baselines (RLOO).

    .. math:: \hat g = \frac{1}{S} \sum_{i=1}^S \Bigl(f(D_i) - \frac{1}{S - 1} \sum_{j \ne i} f(D_j)\Bigr)
              \nabla_\theta \log p(D_i)

    Args:
        samples: S >= 2, evaluations of f.

    Gradient:
        Unbiased for any f; the variance falls as 1/S, and constant shifts of f do not matter.

    Raises:
        TypeError, ValueError: samples is no int of at least 2.

    Example:
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> law = softdraw.OneHotCategorical(logits)
        >>> softdraw.expect(lambda y: y[..., 0], law, softdraw.LeaveOneOut(samples=8), seed=0).backward()
        >>> logits.grad
        tensor([ 0.2679, -0.1607, -0.1071])

    Source:
        Kool, van Hoof and Welling (2019), "Buy 4 REINFORCE samples, get a baseline for free!".
    """

    samples: int = 4

    def __post_init__(self) -> None:
        check_count(self, "samples", self.samples, least=2)

    def estimate(self, objective: Objective) -> Tensor:
        y = objective.sample(self.samples)
        value = objective.values(y)
        others = (value.sum(0) - value) / (self.samples - 1)
        return (value + score((value - others).detach(), objective.log_prob(y))).mean(0)
