"""REINFORCE, the plain score-function estimator."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from softdraw.rules.checks import check_count, check_weight
from softdraw.rules.score_function import Objective, ScoreFunction, check_broadcasts, score


@dataclass(frozen=True, eq=False)
class Reinforce(ScoreFunction):
    r"""The score-function estimator with a baseline that does not depend on the sample.

    .. math:: \hat g = \frac{1}{S} \sum_{i=1}^S (f(D_i) - \mathrm{baseline}) \nabla_\theta \log p(D_i)

    Args:
        baseline: a number, or a tensor that broadcasts to the batch of values, such as a running mean of f or a
            prediction from the input.
        samples: S, evaluations of f.

    Gradient:
        Unbiased for any f; the variance grows with (f - baseline)^2 and with the number of variables.

    Raises:
        TypeError, ValueError: samples is no int of at least 1; baseline is no finite number or real tensor, or does
            not broadcast to the values.

    Example:
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> law = softdraw.OneHotCategorical(logits)
        >>> softdraw.expect(lambda y: y[..., 0], law, softdraw.Reinforce(baseline=0.5, samples=8), seed=0).backward()
        >>> logits.grad
        tensor([ 0.2292, -0.1458, -0.0833])

    Source:
        Williams (1992), "Simple statistical gradient-following algorithms for connectionist reinforcement learning".
    """

    baseline: float | Tensor = 0.0
    samples: int = 1

    def __post_init__(self) -> None:
        check_weight(self, "baseline", self.baseline)
        check_count(self, "samples", self.samples)

    def estimate(self, objective: Objective) -> Tensor:
        y = objective.sample(self.samples)
        value = objective.values(y)
        check_broadcasts("baseline of Reinforce", self.baseline, value)
        return (value + score((value - self.baseline).detach(), objective.log_prob(y))).mean(0)
