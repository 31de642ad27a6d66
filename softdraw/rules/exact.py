"""The exact expectation, by enumeration."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from softdraw.arguments import compute_dtype
from softdraw.rules.checks import check_count
from softdraw.rules.needs import Need
from softdraw.rules.score_function import Objective, ScoreFunction

_NUMBERED = 2**62  # states that int64 can number, and products on the way to their digits


@dataclass(frozen=True, eq=False)
class Exact(ScoreFunction):
    r"""The expectation itself, summed over every state, joint states of independent variables included.

    .. math:: E[f] = \sum_x p(x) f(x), \qquad \hat g = \sum_x f(x) \nabla p(x)

    Args:
        limit: the largest number of joint states that is enumerated, C^n for n variables of C categories.
        chunk: states given to f at once.

    Gradient:
        Exact: no bias, no variance.

    Raises:
        ValueError: there are more states than ``limit``. TypeError, ValueError: limit or chunk is no int of at least 1.

    Example:
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> law = softdraw.OneHotCategorical(logits)
        >>> value = softdraw.expect(lambda y: y[..., 0], law, softdraw.Exact())
        >>> value.backward(); value.item(), logits.grad
        (0.3333333134651184, tensor([ 0.2222, -0.1111, -0.1111]))
    """

    limit: int = 100_000
    chunk: int = 4096
    needs = Need.STATES

    def __post_init__(self) -> None:
        check_count(self, "limit", self.limit)
        check_count(self, "chunk", self.chunk)

    def estimate(self, objective: Objective) -> Tensor:
        instead = "SumAndSample, LeaveOneOut or a pathwise rule"
        states = objective.states_for(self, self.limit, "enumerate", _NUMBERED, instead)
        theta = objective.law.theta
        total = torch.zeros((), dtype=compute_dtype(theta.dtype), device=theta.device)
        for first in range(0, states, self.chunk):
            which = torch.arange(first, min(first + self.chunk, states), device=objective.law.theta.device)
            y = objective.joint_states(which.view(-1, *[1] * len(objective.batch)))
            p, value = objective.log_prob(y).exp(), objective.values(y)
            total = total + (p * torch.where(p > 0, value, 0)).sum(0)  # f may be infinite where nothing can be
        return total
