"""Sorting, relaxed: a matrix of which each row is a softmax over the items, and tends to a permutation as tau falls."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from softdraw.arguments import compute_dtype, prepare_mask
from softdraw.numerics import masked, softmax
from softdraw.relaxations.arguments import check_scores, number_or_checked


def soft_sort(scores: Tensor, tau: float | Tensor = 1.0, mask: Tensor | None = None) -> Tensor:
    r"""The permutation that sorts scores, largest first, relaxed: row i says which item has place i.

    .. math:: P_{ij} = \mathrm{softmax}_j \Bigl(-\frac{|s_{(i)} - s_j|}{\tau}\Bigr), \qquad
              s_{(1)} \ge s_{(2)} \ge \ldots

    ``soft_sort(s, tau) @ s`` are the sorted scores, relaxed. There is no noise in it: ``softdraw.PlackettLuce`` draws
    orders.

    Args:
        scores: s, ``(*batch, n)``, any floating dtype.
        tau: > 0, a number or a tensor, one per row, of shape ``(*batch, 1)``; it may be learned. It has the units of
            the scores.
        mask: bool, True = allowed, broadcasts to the scores. A forbidden item, as one at -inf, has no place: its column
            is zero, and so are the last rows, one for each of them.

    Returns:
        ``(*batch, n, n)`` in the dtype of the scores. Each row sums to 1, a column need not. For every tau the largest
        number of row i is at the item that has place i, where scores differ. A row of scores with NaN or +inf is NaN.

    Gradient:
        Exact, of the formula: through the sort it is that of the permutation, which is constant where scores differ.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> scores = torch.tensor([1.0, 3.0, 2.0])
        >>> softdraw.soft_sort(scores, tau=0.5)
        tensor([[0.0159, 0.8668, 0.1173],
                [0.1065, 0.1065, 0.7870],
                [0.8668, 0.0159, 0.1173]])
        >>> softdraw.soft_sort(scores, tau=0.1) @ scores
        tensor([3.0000, 2.0000, 1.0000])

    Source:
        Prillo and Eisenschlos (2020), "SoftSort: a continuous relaxation for the argsort operator", equation 8.
    """
    check_scores(scores, 1)
    allowed = prepare_mask(mask, scores, scores.dim() - 1, "scores")
    x = masked(scores.to(compute_dtype(scores.dtype)), allowed)
    return sorted_rows(x, tau, x.shape[-1]).to(scores.dtype)


def neural_sort(scores: Tensor, tau: float | Tensor = 1.0, mask: Tensor | None = None) -> Tensor:
    r"""The permutation that sorts scores, largest first, relaxed by all the differences of scores (NeuralSort).

    .. math:: P_{ij} = \mathrm{softmax}_j \Bigl(\frac{(n + 1 - 2 i) s_j - \sum_k |s_j - s_k|}{\tau}\Bigr)

    Args:
        scores: s, ``(*batch, n)``, any floating dtype.
        tau: as for :func:`soft_sort`.
        mask: as for :func:`soft_sort`; n counts the allowed items of a row.

    Returns:
        As :func:`soft_sort` does: rows sum to 1, and for every tau the largest number of row i is at the item that has
        place i.

    Gradient:
        Exact, of the formula, which holds no sort.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> softdraw.neural_sort(torch.tensor([1.0, 3.0, 2.0]), tau=1.0)
        tensor([[0.0132, 0.7214, 0.2654],
                [0.2119, 0.2119, 0.5761],
                [0.7214, 0.0132, 0.2654]])

    Source:
        Grover, Wang, Zweig and Ermon (2019), "Stochastic optimization of sorting networks via continuous relaxations",
        equation 5.
    """
    check_scores(scores, 1)
    allowed = prepare_mask(mask, scores, scores.dim() - 1, "scores")
    x = masked(scores.to(compute_dtype(scores.dtype)), allowed)
    tau = number_or_checked(tau, x)
    forbidden = x == -math.inf
    n = (~forbidden).sum(-1, keepdim=True)
    s = x.masked_fill(forbidden, 0)
    apart = (s.unsqueeze(-1) - s.unsqueeze(-2)).abs().masked_fill(forbidden.unsqueeze(-2), 0).sum(-1)
    place = torch.arange(x.shape[-1], device=x.device)
    slope = (n - 1 - 2 * place).to(x.dtype).unsqueeze(-1)
    each = (slope * s.unsqueeze(-2) - apart.unsqueeze(-2)).masked_fill(_nothing(forbidden, n), -math.inf)
    return softmax(each, _for_matrices(tau)).to(scores.dtype)


def sorted_rows(x: Tensor, tau: float | Tensor, length: int) -> Tensor:
    """The first ``length`` rows of ``soft_sort`` of scores in float32 or float64."""
    tau = number_or_checked(tau, x)
    x = x.masked_fill(x == math.inf, math.nan)
    forbidden = x == -math.inf
    n = (~forbidden).sum(-1, keepdim=True)
    best = x.sort(dim=-1, descending=True, stable=True).values[..., :length]
    apart = (best.masked_fill(best == -math.inf, 0).unsqueeze(-1) - x.masked_fill(forbidden, 0).unsqueeze(-2)).abs()
    return softmax((-apart).masked_fill(_nothing(forbidden, n)[..., :length, :], -math.inf), _for_matrices(tau))


def _nothing(forbidden: Tensor, n: Tensor) -> Tensor:
    """Where the matrix is zero: columns of forbidden items, and rows behind the last allowed one."""
    place = torch.arange(forbidden.shape[-1], device=forbidden.device)
    return forbidden.unsqueeze(-2) | (place >= n).unsqueeze(-1)


def _for_matrices(tau: float | Tensor) -> float | Tensor:
    """A tau per row as one per matrix."""
    return tau.unsqueeze(-1) if isinstance(tau, Tensor) and tau.dim() else tau
