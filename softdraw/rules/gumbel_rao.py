"""Gumbel-Rao: straight-through Gumbel-softmax averaged over the noise that could have made the sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from softdraw.arguments import KernelRule, per_row
from softdraw.numerics import softmax_vjp
from softdraw.operators.softmax import softmax
from softdraw.rules.checks import check_count, check_tau
from softdraw.rules.conditional_noise import Noise
from softdraw.rules.needs import Family
from softdraw.rules.pathwise import Pathwise


@dataclass(frozen=True, eq=False)
class GumbelRao(Pathwise):
    r"""Straight-through Gumbel-softmax, Rao-Blackwellised given the sample.

    .. math:: \hat g = \frac{1}{K} \sum_{k=1}^K J(y_k)\, g / \tau, \qquad
              y_k = \mathrm{softmax}((\theta + G_k) / \tau), \quad G_k \sim p(G \mid D)

    The first of the K is the draw's own noise, so ``GumbelRao(tau, 1)`` is ``StraightThroughGumbel(tau)``.

    Args:
        tau: > 0, a number or a tensor, one per row.
        samples: K, 10 to 1000; f is still evaluated only once. Memory does not grow with K, time does.

    Gradient:
        The mean of straight-through Gumbel-softmax, so its bias; never more variance, less as K grows. As tau tends to
        0 it tends to ``ZGR``, which costs no samples.

    Raises:
        TypeError, ValueError: tau is no positive number or requires a gradient; samples is no int of at least 1.

    Example:
        >>> logits = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
        >>> y = softdraw.draw(softdraw.OneHotCategorical(logits), softdraw.GumbelRao(tau=0.5, samples=100), seed=0)
        >>> (y * torch.tensor([3.0, 0.0, 0.0])).sum().backward(); logits.grad
        tensor([ 0.2221, -0.0313, -0.1908])

    Source:
        Paulus, Maddison and Krause (2021), "Rao-Blackwellizing the straight-through Gumbel-softmax".
    """

    tau: float | Tensor = 0.5
    samples: int = 10

    def __post_init__(self) -> None:
        check_tau(self, self.tau)
        check_count(self, "samples", self.samples)

    def kernel(self) -> KernelRule:
        return KernelRule("gumbel_rao", self.tau, draws=self.samples)

    def vjp(self, law: Family, sample: Tensor, grad: Tensor, noise: Noise) -> Tensor:
        total = softmax_vjp(softmax(noise.scores(law.theta, sample), self.tau), grad)
        total = total + rao_blackwell(noise.conditional(law.theta, sample, self.samples - 1), self.tau, grad)
        return total / (self.samples * per_row(self.tau, law.theta))


def rao_blackwell(chunks: Iterator[Tensor], tau: float | Tensor, grad: Tensor) -> Tensor | int:
    """The sum of J(softmax(s / tau)) g over chunks of scores s, one chunk at a time."""
    return sum(softmax_vjp(softmax(s, tau), grad).sum(0) for s in chunks)
