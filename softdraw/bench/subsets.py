"""``subsets``: the numbers of ``Subset``, beside the log-space recursion in torch.

A tenth of the items are chosen, 1000 at most; in lines that say so, 10. ``all`` is one call each of log-normalizer,
mean, sample and covariance product. The recursion is L[j] = logaddexp(L[j], theta_i + L[j - 1]), item after item, as
published code has it, and its marginals are the gradient that autograd makes of it. It runs for rows of at most 512.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from softdraw.bench.line import Line, Ways
from softdraw.laws import Subset

_LONGEST = 512  # items of the recursion, whose loop takes some 10 operations of torch an item


def recursion(theta: Tensor, k: int) -> Tensor:
    """log Z in log space."""
    table = torch.full((*theta.shape[:-1], k + 1), -torch.inf, dtype=theta.dtype, device=theta.device)
    table[..., 0] = 0
    for t in theta.unbind(-1):
        taken = torch.logaddexp(table[..., 1:], t.unsqueeze(-1) + table[..., :-1])
        table = torch.cat((table[..., :1], taken), -1)
    return table[..., k]


def marginals(theta: Tensor, k: int) -> Tensor:
    """The gradient of log Z."""
    leaf = theta.detach().clone().requires_grad_()
    return torch.autograd.grad(recursion(leaf, k).sum(), leaf)[0]


def _all(law: Subset) -> tuple[Tensor, ...]:
    return law.log_normalizer(), law.mean, law.sample(seed=0), law.covariance_product(law.theta)


def _line(ours: Callable[[Subset], Any], by_hand: Callable[[Tensor, int], Tensor] | None = None, k: int = 0) -> Line:
    def ways(x: Tensor) -> Ways:
        chosen = min(k or max(1, x.shape[-1] // 10), 1000, x.shape[-1])
        calls: Ways = {"softdraw": lambda: ours(Subset(x, chosen))}
        if by_hand and x.shape[-1] <= _LONGEST:
            calls["recursion"] = partial(by_hand, x, chosen)
        return calls

    return Line(ways, dense=2)


LINES = {
    "Subset.log_normalizer": _line(Subset.log_normalizer, recursion),
    "Subset.mean": _line(lambda law: law.mean, marginals),
    "Subset.sample": _line(lambda law: law.sample(seed=0)),
    "Subset.covariance": _line(lambda law: law.covariance_product(law.theta)),
    "Subset.all": _line(_all),
    "Subset.all,k=10": _line(_all, k=10),
}
