"""Every law, once; tests/test_laws_contract.py goes by property over this list. A new law is one line here.

``Subset`` is a law of the tests alone: k of n items, by enumeration. The contract holds beyond categories.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor
from torch.distributions import constraints

import softdraw
from softdraw.laws import Law
from softdraw.rules.needs import Need
from tests.methods import one_hot_logits


class Subset(Law):
    """k of n items, p(z) proportional to exp(<theta, z>), as a k-hot vector; every subset is listed."""

    offers = (Need.SAMPLES, Need.STATES, Need.FAMILY)
    support = constraints.independent(constraints.boolean, 1)
    arg_constraints = {}  # noqa: RUF012
    has_enumerate_support = True

    def __init__(self, logits: Tensor, k: int, rule=None, validate_args=None) -> None:
        self.k = k
        super().__init__(logits, None, rule, validate_args)

    def table(self) -> Tensor:
        n = self.theta.shape[-1]
        rows = [[float(i in chosen) for i in range(n)] for chosen in combinations(range(n), self.k)]
        return torch.tensor(rows, dtype=torch.float64)

    def log_probs(self) -> Tensor:
        return (self.scores().double() @ self.table().T).log_softmax(-1)

    def draw_exactly(self, shape, seed, rows):
        index = softdraw.gumbel_max(
            self.log_probs().detach(), sample_shape=shape, seed=seed, rows=0 if rows is None else rows.squeeze(-1)
        )
        return self.state(index)

    def log_prob_wide(self, value):
        return (value.double() * self.scores().double()).sum(-1) - self.log_normalizer().double()

    def log_normalizer(self):
        return (self.scores().double() @ self.table().T).logsumexp(-1).to(self.theta.dtype)

    @property
    def mean(self):
        return (self.log_probs().exp() @ self.table()).to(self.theta.dtype)

    def covariance_product(self, grad):
        p, z = self.log_probs().exp(), self.table()
        values = grad.double() @ z.T  # <g, z> for every subset
        centred = values - (p * values).sum(-1, keepdim=True)
        return ((p * centred) @ z).to(grad.dtype)

    @property
    def states(self):
        return len(self.table())

    def state(self, index):
        return self.table()[index].to(self.theta.dtype)

    def enumerate_support(self, expand=True):
        every = self.table().view(self.states, *[1] * len(self.batch_shape), -1).to(self.theta.dtype)
        return every.expand(-1, *self.batch_shape, -1) if expand else every


MASK = torch.tensor([True, False, True, True])
LAWS = {
    "one-hot": lambda x: softdraw.OneHotCategorical(x),
    "masked one-hot": lambda x: softdraw.OneHotCategorical(x, MASK),
    "bits": lambda x: softdraw.Bernoulli(x),
    "masked bits": lambda x: softdraw.Bernoulli(x, MASK),
    "2 of 4": lambda x: Subset(x, 2),
}


def logits(dtype=torch.float64):
    """The parameters that every law of the list takes."""
    return one_hot_logits(3, 4, dtype=dtype)
