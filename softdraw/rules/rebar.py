"""REBAR: RELAX with f itself, at the relaxed sample, as the control variate."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from softdraw.rules.checks import check_count, check_tau, check_weight
from softdraw.rules.needs import Need
from softdraw.rules.relax import controlled
from softdraw.rules.score_function import Objective, ScoreFunction, check_broadcasts


@dataclass(frozen=True, eq=False)
class Rebar(ScoreFunction):
    r"""The score-function estimator with f at the relaxed sample as control variate.

    .. math:: \hat g = (f(D) - \eta f(\tilde y)) \nabla \log p(D) + \eta \nabla f(y) - \eta \nabla f(\tilde y), \qquad
              y = \mathrm{softmax}(z / \tau), \; \tilde y = \mathrm{softmax}(\tilde z / \tau)

    with :math:`z = \theta + G`, D its argmax, and :math:`\tilde z \sim p(z \mid D)` reparametrised. For orders
    (``PlackettLuce``) D are the indices that sort z, and in place of the softmax is ``softdraw.soft_sort``: relaxed
    permutation matrices, ``(..., length, n)``.

    Args:
        tau: > 0, a number or a tensor; may be learned.
        eta: the control's weight, a number or a tensor; may be learned. 0 is REINFORCE.
        samples: S; f is evaluated three times a sample.

    Gradient:
        Unbiased for any eta and tau, where f is differentiable at relaxed samples. To tune eta and tau, minimise the
        variance: ``g, = torch.autograd.grad(loss, logits, create_graph=True)``, then
        ``(g**2).sum().backward(inputs=[eta, tau])``. The loss itself sends them no gradient.

    Raises:
        TypeError, ValueError: tau is no positive number, eta no finite number or real tensor, or samples no int of at
            least 1; f has no gradient at relaxed samples.

    Example:
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> law = softdraw.OneHotCategorical(logits)
        >>> softdraw.expect(lambda y: y[..., 0] ** 2, law, softdraw.Rebar(tau=0.5, eta=1.0), seed=0).backward()
        >>> logits.grad
        tensor([ 0.7240, -0.1948, -0.5292])

    Source:
        Tucker, Mnih, Maddison, Lawson and Sohl-Dickstein (2017), "REBAR".
    """

    tau: float | Tensor = 0.5
    eta: float | Tensor = 1.0
    samples: int = 1
    needs = Need.SCORES

    def __post_init__(self) -> None:
        check_tau(self, self.tau, learned=True)
        check_weight(self, "eta", self.eta)
        check_count(self, "samples", self.samples)

    def estimate(self, objective: Objective) -> Tensor:
        def control(y: Tensor) -> Tensor:
            value = objective.values(y)
            check_broadcasts("eta of Rebar", self.eta, value)
            return self.eta * value

        return controlled(objective, control, self.tau, self.samples)
