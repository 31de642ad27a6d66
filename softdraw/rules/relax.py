"""RELAX: a free-form control variate on a reparametrised relaxation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from softdraw.checks import given
from softdraw.rules.checks import check_count, check_tau
from softdraw.rules.needs import Need, Scored
from softdraw.rules.score_function import Objective, ScoreFunction, score


@dataclass(frozen=True, eq=False)
class Relax(ScoreFunction):
    r"""The score-function estimator with a control variate c of the relaxed sample.

    .. math:: \hat g = (f(D) - c(\tilde y)) \nabla \log p(D) + \nabla c(y) - \nabla c(\tilde y), \qquad
              y = \mathrm{softmax}(z / \tau), \; \tilde y = \mathrm{softmax}(\tilde z / \tau)

    with :math:`z = \theta + G`, D its argmax, and :math:`\tilde z \sim p(z \mid D)` reparametrised. For orders
    (``PlackettLuce``) D are the indices that sort z, and in place of the softmax is ``softdraw.soft_sort``: relaxed
    permutation matrices, ``(..., length, n)``.

    Args:
        control: maps relaxed samples, of the shape that f gets, to values of the shape that f returns; any
            differentiable callable, a network included.
        tau: > 0, a number or a tensor; may be learned.
        samples: evaluations of f; c is evaluated twice a sample.

    Gradient:
        Unbiased for any f and any control; f may be a black box. The closer c is to f, the lower the variance.
        To learn the control, minimise the variance: ``g, = torch.autograd.grad(loss, logits, create_graph=True)``,
        then ``(g**2).sum().backward(inputs=[*control.parameters()])``. The loss itself sends them no gradient.

    Raises:
        TypeError, ValueError: tau is no positive number, samples no int of at least 1, control not callable; control
            returns another shape than f, or values without a gradient.

    Example:
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> law = softdraw.OneHotCategorical(logits)
        >>> rule = softdraw.Relax(control=lambda y: 0.9 * y[..., 0], tau=0.5)
        >>> softdraw.expect(lambda y: y[..., 0], law, rule, seed=0).backward(); logits.grad
        tensor([ 0.4459, -0.1256, -0.3204])

    Source:
        Grathwohl, Choi, Wu, Roeder and Duvenaud (2018), "Backpropagation through the void".
    """

    control: Callable[[Tensor], Tensor]
    tau: float | Tensor = 1.0
    samples: int = 1
    needs = Need.SCORES

    def __post_init__(self) -> None:
        if not callable(self.control):
            raise TypeError(
                f"control of Relax must be callable, got {given(self.control)}: give a function of relaxed samples"
            )
        check_tau(self, self.tau, learned=True)
        check_count(self, "samples", self.samples)

    def estimate(self, objective: Objective) -> Tensor:
        return controlled(objective, self.control, self.tau, self.samples)


def controlled(objective: Objective, control: Callable, tau: float | Tensor, samples: int) -> Tensor:
    """The estimator for a control variate on relaxed samples.

    The control's parameters reach the gradient but not the value: every term that holds them is zero whatever they
    are, and so has no gradient for them, yet the gradient for the logits can be differentiated for them.
    """
    law: Scored = objective.law
    x, z, noise = objective.scores(samples)
    hard = objective.sample(samples)
    given = law.condition(x, hard, noise.more(x, 0)[0])
    value = objective.values(hard)
    free, fixed = (_controls(control(law.relax(y, tau)), value, z.requires_grad) for y in (z, given))
    out = value + score(value.detach() - fixed, objective.log_prob(hard))
    if z.requires_grad:  # not x: under no_grad a parameter still wants its gradient
        path = _through(free, z) - _through(fixed, given)
        out = out + objective.total(path.sum(-1))
    return out.mean(0)


def _controls(found: object, value: Tensor, differentiated: bool) -> Tensor:
    """What a control returned, once it is seen to be a value for each of f's, with a gradient where one is taken."""
    if not isinstance(found, Tensor) or found.shape != value.shape:
        raise TypeError(
            f"control must return a tensor of the shape of f's values, {tuple(value.shape)}, got {given(found)}"
        )
    if differentiated and not found.requires_grad:
        raise ValueError(
            "control must be differentiable at relaxed samples (Rebar's is f itself), and it returned values without a "
            "graph: for an f outside of torch write Relax(control), or LeaveOneOut(), which needs none"
        )
    return found


def _through(value: Tensor, scores: Tensor) -> Tensor:
    """Zero, with that part of the gradient of ``value`` that passes through ``scores``."""
    slope = torch.autograd.grad(value.sum(), scores, create_graph=True, materialize_grads=True)[0]
    return slope * torch.where(scores == -torch.inf, 0, scores - scores.detach())
