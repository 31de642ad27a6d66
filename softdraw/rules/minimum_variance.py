"""The minimum-variance estimator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from softdraw.arguments import per_row
from softdraw.operators.softmax import softmax
from softdraw.rules.checks import check_tau
from softdraw.rules.conditional_noise import Noise
from softdraw.rules.needs import Family
from softdraw.rules.pathwise import Pathwise


@dataclass(frozen=True, eq=False)
class MinimumVariance(Pathwise):
    r"""The estimator of least variance in its class, for a given weight on exactness at second order.

    .. math:: \hat g = S^\top g, \qquad
              S_i = \frac{(1 + \tau p_i) v_i - \tau p_i v_x + \tau 1[i = x] J_x}{1 + \tau (p_i + p_x)}, \qquad A v = B

    with p the softmax, J = diag(p) - pp^T, rows J_i, v_i, B_i, and

    .. math:: A_{ij} = \frac{-\tau p_i p_j}{1 + \tau (p_i + p_j)}, \quad
              A_{ii} = (1 + \tau p_i) \sum_j \frac{p_j}{1 + \tau (p_i + p_j)} - \frac{\tau p_i^2}{1 + 2 \tau p_i}, \quad
              B_i = \frac{1 + \tau p_i}{1 + 2 \tau p_i} J_i

    Costs a C x C solve a row, in float64: for small C.

    Args:
        tau: > 0, a number or a tensor, one per row; annealed from 1 to 1e6 in the paper. Not a softmax temperature: it
            weighs bias against variance.

    Gradient:
        Tends to straight-through as tau tends to 0, and is unbiased for quadratic f as tau tends to infinity.

    Raises:
        TypeError, ValueError: tau is no positive number, or requires a gradient.

    Example:
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> y = softdraw.draw(softdraw.OneHotCategorical(logits), softdraw.MinimumVariance(tau=1.0), seed=0)
        >>> (y * torch.tensor([3.0, 0.0, 0.0])).sum().backward(); logits.grad
        tensor([ 0.8000, -0.4000, -0.4000])

    Source:
        Hooper and Shekhovtsov (2026), AISTATS.
    """

    tau: float | Tensor = 1.0

    def __post_init__(self) -> None:
        check_tau(self, self.tau)

    def vjp(self, law: Family, sample: Tensor, grad: Tensor, noise: Noise) -> Tensor:
        # At large tau the rows of A sum to about 1 / tau: the solve loses log10(tau) digits, and float32 has seven.
        p, d = softmax(law.theta.double()), sample.double()
        t = per_row(self.tau, law.theta).double()
        jacobian = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)
        v = _solve(p, t, jacobian)
        tp, chosen = (t * p).unsqueeze(-1), d.unsqueeze(-1)
        at_sample = (chosen * v).sum(-2, keepdim=True)
        s = (1 + tp) * v - tp * at_sample + t.unsqueeze(-1) * chosen * jacobian
        s = s / (1 + tp + (chosen * tp).sum(-2, keepdim=True))
        return (s * grad.double().unsqueeze(-1)).sum(-2).to(law.theta.dtype)


def _solve(p: Tensor, t: Tensor, jacobian: Tensor) -> Tensor:
    """v of A v = B. A is symmetric and strictly diagonally dominant, so it has an inverse for every finite tau."""
    tp = t * p
    inverse = 1 / (1 + tp.unsqueeze(-1) + tp.unsqueeze(-2))
    nothing = (p.sum(-1, keepdim=True) == 0).to(p.dtype)  # a row with nothing allowed would be 0 v = 0
    diagonal = (1 + tp) * (inverse * p.unsqueeze(-2)).sum(-1) + nothing
    a = torch.diag_embed(diagonal) - tp.unsqueeze(-1) * p.unsqueeze(-2) * inverse
    b = ((1 + tp) / (1 + 2 * tp)).unsqueeze(-1) * jacobian
    return torch.linalg.solve_ex(a, b)[0]
