"""Matrices of scores as doubly stochastic ones, and draws of these with Gumbel noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from softdraw.arguments import compute_dtype, prepare_mask, prepare_shape, row_ids
from softdraw.checks import count, integer, number
from softdraw.numerics import masked
from softdraw.operators.operator import Operation
from softdraw.private_torch import forward_mode
from softdraw.relaxations.arguments import check_scores, number_or_checked
from softdraw.rules.conditional_noise import Noise
from softdraw.seeds import keyed

_REGULAR = 1e-12  # beside 1: what keeps the system of a matrix that falls into blocks solvable


class SinkhornPlan(NamedTuple):
    """What :func:`sinkhorn` returns: ``plan, residual = softdraw.sinkhorn(scores)``.

    .. math:: \\mathrm{residual} = \\max_{i,j} (|\\sum_j P_{ij} - 1|, |\\sum_i P_{ij} - 1|)

    Args:
        plan: P, ``(*batch, n, n)``: not negative, rows and columns sum to 1 within the residual.
        residual: ``batch``: by how much a row or a column misses 1, at most. Without gradient.

    Example:
        >>> found = softdraw.sinkhorn(torch.zeros(2, 2))
        >>> found.plan, found.residual
        (tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]]), tensor(0.))
    """

    plan: Tensor
    residual: Tensor


def sinkhorn(
    scores: Tensor,
    tau: float | Tensor = 1.0,
    tol: float = 1e-6,
    max_iterations: int = 1000,
    mask: Tensor | None = None,
) -> SinkhornPlan:
    r"""The doubly stochastic matrix nearest to scores: a permutation, relaxed.

    .. math:: P = \arg\max_P \; \langle S, P \rangle - \tau \sum_{ij} P_{ij} \log P_{ij}, \qquad
              P \mathbf{1} = \mathbf{1}, \; P^\top \mathbf{1} = \mathbf{1}

    P is exp(S / tau + u_i + v_j). Rows and columns are normalised in turn, in log space and in float64, until all of a
    matrix's sums are within ``tol`` of 1. As tau falls, P tends to the permutation of the largest total score.

    Args:
        scores: S, ``(*batch, n, n)``, any floating dtype.
        tau: > 0, a number or a tensor, one per matrix, of shape ``(*batch, 1, 1)``; it may be learned. It has the units
            of the scores. The number of iterations grows as it falls.
        tol: > 0, a number: how near to 1 the sums must be.
        max_iterations: at most so many, each of all rows and of all columns.
        mask: bool, True = allowed, broadcasts to the scores. A forbidden entry is zero, as one at -inf.

    Returns:
        :class:`SinkhornPlan`, a named tuple of the plan, in the dtype of the scores, and the residual. A residual above
        ``tol`` says that the iterations ran out, or that no doubly stochastic matrix is zero at what is forbidden. A
        matrix stops by itself, so it is the same in every batch. A matrix with NaN or +inf is NaN.

    Gradient:
        Of the solution (implicit), by a linear system of n unknowns for each matrix: it costs no memory and no time for
        the iterations, and is exact up to the residual. Derivatives of every order, and forward mode. The gradient for
        tau is that of the solution too.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> scores = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
        >>> plan, residual = softdraw.sinkhorn(scores, tau=0.5)
        >>> plan
        tensor([[0.6854, 0.2890, 0.0256],
                [0.0256, 0.5891, 0.3853],
                [0.2890, 0.1219, 0.5891]])
        >>> bool(residual <= 1e-6)
        True

    Source:
        Sinkhorn and Knopp (1967); Cuturi (2013), "Sinkhorn distances"; Mena, Belanger, Linderman and Snoek (2018),
        "Learning latent permutations with Gumbel-Sinkhorn networks".
    """
    check_scores(scores, 2)
    allowed = prepare_mask(mask, scores, scores.dim() - 1, "scores")
    return _balanced(masked(scores.to(compute_dtype(scores.dtype)), allowed), tau, tol, max_iterations, scores.dtype)


def gumbel_sinkhorn(
    scores: Tensor,
    tau: float | Tensor = 1.0,
    tol: float = 1e-6,
    max_iterations: int = 1000,
    mask: Tensor | None = None,
    *,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    rows: int | Tensor = 0,
    sample_shape: Sequence[int] = (),
) -> SinkhornPlan:
    r"""Draw doubly stochastic matrices: :func:`sinkhorn` of scores with Gumbel noise.

    .. math:: P = \mathrm{Sinkhorn}((S + G) / \tau)

    As tau falls it tends to the permutation of the largest total of S + G. That is no Plackett-Luce law, and its
    probabilities have no closed form.

    Args:
        scores, tau, tol, max_iterations, mask: as for :func:`sinkhorn`.
        seed: int or 0-d int64 tensor; or a seed for every matrix, or for the first dimensions of the batch.
        generator: where the seed comes from otherwise; default: torch's default generator of the scores' device.
        rows: the id of the first matrix, or an int64 tensor, an id for every matrix; keys the noise. Row i of the
            matrix with the id m is row m n + i of the noise.
        sample_shape: shape of independent draws; the first is the plain draw.

    Returns:
        :class:`SinkhornPlan` of ``(*sample_shape, *batch, n, n)`` and ``(*sample_shape, *batch)``.

    Gradient:
        That of :func:`sinkhorn` at the noisy scores: reparametrised.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> softdraw.gumbel_sinkhorn(torch.zeros(3, 3), seed=0).plan
        tensor([[0.5493, 0.0842, 0.3665],
                [0.3694, 0.0519, 0.5787],
                [0.0813, 0.8639, 0.0548]])

    Source:
        Mena, Belanger, Linderman and Snoek (2018), "Learning latent permutations with Gumbel-Sinkhorn networks".
    """
    check_scores(scores, 2)
    allowed = prepare_mask(mask, scores, scores.dim() - 1, "scores")
    shape = prepare_shape("sample_shape", sample_shape)
    n, batch = scores.shape[-1], scores.shape[:-1]
    if not isinstance(rows, Tensor):
        rows = integer("rows", rows, "the id of the first matrix, or an int64 tensor, an id for every matrix") * n
    x = masked(scores.to(compute_dtype(scores.dtype)), allowed)
    key, ids = keyed(x, batch, seed, generator, rows)
    ids = row_ids(batch, x.device) if ids is None else ids
    x = x.expand(math.prod(shape), *x.shape)
    z = x + Noise(key, ids.unsqueeze(0), drawn=True).gumbel(x)
    return _balanced(z.reshape(*shape, *scores.shape), tau, tol, max_iterations, scores.dtype)


def _balanced(x: Tensor, tau: Any, tol: float, max_iterations: int, dtype: torch.dtype) -> SinkhornPlan:
    t = number_or_checked(tau, x, 2)
    within = number("tol", tol)
    if not 0 < within < math.inf:
        raise ValueError(f"tol must be positive and finite, got {tol}: it is how near to 1 the sums must be")
    most = count("max_iterations", max_iterations, 1, "the number of times that rows and columns are normalised")
    x = x.double()
    top = x.detach().amax((-2, -1), keepdim=True)
    x = (x - torch.where(top == -math.inf, 0, top)) / t
    u, v = potentials(x.detach(), float(within), most).unbind(-2)
    fixed = (x.detach() + u.unsqueeze(-1) + v.unsqueeze(-2)).exp()
    plan = (_Dual if forward_mode() else _Balanced).apply(x, fixed)
    miss = torch.cat((fixed.sum(-1), fixed.sum(-2)), -1) - 1
    return SinkhornPlan(plan.to(dtype), miss.abs().amax(-1).to(compute_dtype(dtype)))


def _iterate(x: Tensor, tol: float | Tensor, most: int) -> Tensor:
    """u and v, ``(..., 2, n)``. A matrix whose rows sum to 1 is left as it is: its columns do since they were last."""
    u, v = torch.zeros_like(x[..., 0]), torch.zeros_like(x[..., 0, :])
    for i in range(most):
        rows = _logsumexp(x + v.unsqueeze(-2), -1)
        left = ((rows + u).exp() - 1).abs().amax(-1, keepdim=True) > tol  # not where it is NaN
        if i and (x.is_cpu or i % 16 == 0) and not bool(left.any()):
            break
        left = left if i else torch.ones_like(left)
        u = torch.where(left, -rows, u)
        v = torch.where(left, -_logsumexp(x + u.unsqueeze(-1), -2), v)
    return torch.stack((u, v), -2)


def _logsumexp(x: Tensor, dim: int) -> Tensor:
    """0 where everything is forbidden, so that nothing becomes of it."""
    return x.logsumexp(dim).masked_fill((x == -math.inf).all(dim), 0)


def _shape(x: Tensor, tol: Tensor, most: int) -> Tensor:
    return x.new_empty((*x.shape[:-2], 2, x.shape[-1]))


def _mapped(info: Any, in_dims: tuple, x: Tensor, tol: Any, most: int) -> tuple[Tensor, int]:
    return potentials(x.movedim(in_dims[0], 0), tol, most), 0


# One node of a compiled graph: how often it iterates depends on values.
potentials = Operation("sinkhorn", "(Tensor x, Tensor tol, SymInt most) -> Tensor", _iterate, _shape, _mapped)


class _Balanced(torch.autograd.Function):
    """The plan, as a function of x = S / tau."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, plan: Tensor) -> Tensor:
        return plan.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(output)  # whose graph second derivatives go through

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple:
        return _derivative(ctx.saved_tensors[0], grad_outputs[0]), None


class _Dual(_Balanced):
    """Adds forward mode: the derivative is symmetric."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return _derivative(ctx.saved_tensors[0], tangents[0])


def _derivative(p: Tensor, g: Tensor) -> Tensor:
    r"""The derivative of the plan along g, and its transpose: p (g - a_i - b_j), whose rows and columns sum to zero.

    With r and c the sums of rows and columns of p, and q those of p g, this is r a + P b = q_r and P' a + c b = q_c.
    Without b it is (r - P c^-1 P') a = q_r - P c^-1 q_c, a semi-definite system that sees no constant in a: that comes
    to nothing in a_i + b_j, so any multiple of the matrix of ones may be added.
    """
    n, q = p.shape[-1], p * g
    r, c = p.sum(-1), p.sum(-2)
    r, c = r.masked_fill(r == 0, 1), c.masked_fill(c == 0, 1)
    by_columns = p / c.unsqueeze(-2)
    system = torch.diag_embed(r + _REGULAR) - by_columns @ p.mT + 1 / n
    wanted = q.sum(-1, keepdim=True) - by_columns @ q.sum(-2).unsqueeze(-1)
    a = torch.linalg.solve_ex(system, wanted)[0]
    b = (q.sum(-2).unsqueeze(-1) - p.mT @ a).mT / c.unsqueeze(-2)
    return q - p * (a + b)
