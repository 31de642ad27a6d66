"""Relaxed top-k: k softmaxes, each without what the ones before it took."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from softdraw.arguments import per_row
from softdraw.rules.checks import check_tau
from softdraw.rules.conditional_noise import Noise
from softdraw.rules.needs import Items, Need
from softdraw.rules.pathwise import Pathwise, check_drawn


@dataclass(frozen=True, eq=False)
class RelaxedTopK(Pathwise):
    r"""A relaxed subset: sums to k, and tends to a k-hot as tau falls.

    .. math:: a^1 = \theta + G, \qquad w^j = \mathrm{softmax}(a^j / \tau), \qquad a^{j+1} = a^j + \log(1 - w^j), \qquad
              y = \sum_{j=1}^k w^j

    The sample is relaxed, and its limit is **not** a sample of the law ``Subset``: it is the top k of perturbed logits,
    Plackett-Luce with its order dropped.

    Args:
        tau: > 0, a number or a tensor, one per row; it may be learned.

    Gradient:
        The relaxation's own, without noise in the backward pass; of the relaxed objective it is unbiased. Grows as
        1 / tau.

    Raises:
        TypeError, ValueError: tau is no positive number; a sample is given (``value=``).

    Example:
        >>> logits = torch.zeros(4, requires_grad=True)
        >>> y = softdraw.draw(softdraw.Subset(logits, 2), softdraw.RelaxedTopK(tau=0.5), seed=0)
        >>> y.detach(), y.detach().sum()
        (tensor([0.9004, 0.1497, 0.3476, 0.6024]), tensor(2.))

    Source:
        Xie and Ermon (2019), "Reparameterizable subset sampling via continuous relaxations", algorithm 1.
    """

    tau: float | Tensor = 0.5
    needs = Need.ITEMS

    def __post_init__(self) -> None:
        check_tau(self, self.tau, learned=True)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  (`needs` says that the law is one of items)
        self, law: Items, sample: Tensor, noise: Noise
    ) -> Tensor:
        check_drawn(self, noise)
        theta = law.theta
        tau, a = per_row(self.tau, theta), theta + noise.gumbel(theta)
        y = a.masked_fill(torch.ones_like(a, dtype=torch.bool), 0)  # in the graph, where nothing is taken too
        k = law.k if isinstance(law.k, int) else law.k.unsqueeze(-1)
        there = sample.detach().sum(-1, keepdim=True) >= k  # a row that has no subset stays zero, a NaN row is NaN
        for taken in range(law.k if isinstance(law.k, int) else law.most):
            w, log_rest = _without(a, tau)
            y = y + torch.where(there & (taken < k), w, 0)
            a = a + log_rest
        return torch.where(sample.isnan(), sample, y)


def _without(a: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    """w = softmax(a / tau) and log(1 - w).

    That of the largest is summed from the others, which keeps its digits as w tends to 1. Where all others underflow,
    the sum is taken relative to the second: an item that kept a finite share of its lead would be taken twice. Where
    there are no others it ends at the smallest number, so that its derivative stays finite.
    """
    tiny = torch.finfo(a.dtype).tiny
    top, at = a.detach().max(-1, keepdim=True)
    u = (a - torch.where(top.isfinite(), top, 0)) / tau
    e = torch.exp(u)
    largest = torch.zeros_like(a, dtype=torch.bool).scatter(-1, at, True)
    total = e.sum(-1, keepdim=True)
    total = torch.where(total == 0, 1, total)
    rest = torch.where(largest, e.masked_fill(largest, 0).sum(-1, keepdim=True), total - e)
    others = u.masked_fill(largest, -math.inf)
    second = others.detach().amax(-1, keepdim=True)
    far = second.isfinite() & (second < math.log(tiny))
    second = torch.where(far, second, 0)
    log_others = second + torch.where(far, others - second, others).exp().sum(-1, keepdim=True).clamp_min(tiny).log()
    log_rest = (rest.clamp_min(tiny) / total).log()
    return e / total, torch.where(far & largest, log_others - total.log(), log_rest)
