"""Sum over the likeliest states, sample the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from softdraw.operators import draws
from softdraw.rules.checks import check_count
from softdraw.rules.needs import Need
from softdraw.rules.score_function import Objective, ScoreFunction, score

_TABLE = 2**32  # probabilities in memory at once


@dataclass(frozen=True, eq=False)
class SumAndSample(ScoreFunction):
    r"""Exact over the most probable joint states, the score function over the others: a Rao-Blackwellised REINFORCE.

    .. math:: \hat g = \sum_{x \in T} f(x) \nabla p(x) + \frac{q}{S} \sum_{i=1}^S f(x_i) \nabla \log p(x_i), \qquad
              x_i \sim p(x \mid x \notin T), \quad q = P(x \notin T)

    T being the ``summed`` most probable joint states, found from their probabilities without evaluating f.

    Args:
        summed: the number of states in T.
        samples: S, draws from the others; f is evaluated ``summed + samples`` times.
        limit: the largest number of joint states whose probabilities are compared.

    Gradient:
        Unbiased for any f; the variance falls with the mass that is summed. Exact once T holds every state.

    Raises:
        ValueError: there are more joint states than ``limit``. TypeError, ValueError: a count is no int of at least 1.

    Example:
        >>> logits = torch.tensor([3.0, 1.0, 0.0, 0.0], requires_grad=True)
        >>> law = softdraw.OneHotCategorical(logits)
        >>> softdraw.expect(lambda y: y[..., 0], law, softdraw.SumAndSample(summed=2), seed=0).backward(); logits.grad
        tensor([ 0.1540, -0.0887, -0.0326, -0.0326])

    Source:
        Liu, Regier, Tripuraneni, Jordan and McAuliffe (2019), "Rao-Blackwellized stochastic gradients for discrete
        distributions".
    """

    summed: int = 8
    samples: int = 1
    limit: int = 100_000
    needs = Need.STATES

    def __post_init__(self) -> None:
        for name in ("summed", "samples", "limit"):
            check_count(self, name, getattr(self, name))

    def estimate(self, objective: Objective) -> Tensor:
        log_p = self._table(objective)  # (*batch, states)
        top = log_p.topk(min(self.summed, log_p.shape[-1]), dim=-1).indices
        others = torch.ones_like(log_p, dtype=torch.bool).scatter(-1, top, False)
        seed, rows = objective.batch_keys()
        drawn = draws.gumbel_max(log_p, seed, rows, others, self.samples, 0)  # -1 where T is everything
        return self._summed(objective, top) + self._sampled(objective, drawn, log_p, others)

    def _table(self, objective: Objective) -> Tensor:
        instead = "LeaveOneOut or a pathwise rule"
        states = objective.states_for(self, self.limit, "compare", _TABLE // max(objective.batch.numel(), 1), instead)
        which = torch.arange(states, device=objective.law.theta.device)
        with torch.no_grad():
            y = objective.joint_states(which.view(-1, *[1] * len(objective.batch)))
            return objective.log_prob(y).movedim(0, -1).contiguous()

    def _summed(self, objective: Objective, top: Tensor) -> Tensor:
        y = objective.joint_states(top.movedim(-1, 0))
        p, value = objective.log_prob(y).exp(), objective.values(y)
        return (p * torch.where(p > 0, value, 0)).sum(0)  # f may be infinite where nothing can be

    def _sampled(self, objective: Objective, drawn: Tensor, log_p: Tensor, others: Tensor) -> Tensor:
        q = log_p.masked_fill(~others, -math.inf).exp().sum(-1)
        y = objective.joint_states(drawn.clamp_min(0))
        weighted = torch.where(drawn < 0, 0, q * objective.values(y))
        log_prob = torch.where(drawn < 0, 0, objective.log_prob(y))
        return (weighted + score(weighted.detach(), log_prob)).mean(0)
