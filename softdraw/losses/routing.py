"""Penalties for routers: the squared coefficient of variation of what experts get, and the size of the logits."""

from __future__ import annotations

import torch
from torch import Tensor

from softdraw import numerics
from softdraw.arguments import compute_dtype
from softdraw.checks import check_device, check_floating, check_tensor, count, given
from softdraw.losses.common import kept_mask, kept_rows, reduce, without
from softdraw.overrides import overridable
from softdraw.tensors import is_plain


@overridable
def squared_cv(
    amounts: Tensor,
    index: Tensor | None = None,
    *,
    experts: int | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""The squared coefficient of variation of what the experts get: 0 when all get the same, E - 1 when one gets all.

    .. math:: \ell = \mathrm{Var}(s) / \mathrm{Mean}(s)^2, \qquad s_e = \sum_i a_{i e}

    It is computed from the variance. As a squared quotient of a standard deviation its gradient would be NaN where all
    get the same, which is where training leads.

    Args:
        amounts: a: dense, ``(..., E)``, as a router's probabilities; or sparse with ``index``, ``(..., k)``, as
            its weights. Any floating dtype.
        index: the expert of each amount, int64 of the shape of ``amounts``; -1 for none.
        experts: E, needed with ``index``.
        mask: bool, True = counted, of the shape of ``amounts`` without the last dimension, 1 where it is the same along
            a dimension.

    Returns:
        float32 (float64 for float64 amounts), 0-d; 0 where nobody gets anything.

    Gradient:
        Exact; zero where all experts get the same.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> p = torch.tensor([[0.5, 0.5], [0.5, 0.5]], requires_grad=True)
        >>> softdraw.losses.squared_cv(p).backward(); p.grad
        tensor([[0., 0.],
                [0., 0.]])
        >>> softdraw.losses.squared_cv(torch.ones(3, 1), torch.tensor([[0], [0], [1]]), experts=2)
        tensor(0.1111)

    Source:
        Shazeer et al. (2017), "Outrageously large neural networks", eqs. 6 and 7, with the variance of the population.
    """
    check_floating("amounts", amounts)
    if not amounts.dim() or not amounts.shape[-1]:
        raise ValueError(f"amounts must have a last dimension, that of experts, got shape {tuple(amounts.shape)}")
    a = amounts.to(compute_dtype(amounts.dtype))
    if mask is not None:
        keep = kept_mask(mask, a[..., 0], "the amounts without the last dimension")
        a = without(a, None if keep is None else keep.unsqueeze(-1))
    if index is not None:
        share = _collected(a, index, experts)
    else:
        share = a.sum(tuple(range(a.dim() - 1))) if a.dim() > 1 else a
    mean = share.mean()
    if not numerics.readable(mean) or mean.item() == 0:
        mean = mean.masked_fill(mean == 0, 1)
    return share.var(correction=0) / mean.square()


def _collected(a: Tensor, index: Tensor, experts: int | None) -> Tensor:
    """What each expert gets, from amounts and indices."""
    if not isinstance(index, Tensor) or index.dtype != torch.int64:
        raise TypeError(f"index must be an int64 tensor, got {given(index)}: write index.long()")
    check_tensor("index", index)
    check_device("index", index, a.device, "amounts")
    if index.shape != a.shape:
        raise ValueError(f"index must have the shape of amounts, {tuple(a.shape)}, got {tuple(index.shape)}")
    if experts is None:
        raise ValueError("experts must be given with index, got None: it is E, the number of experts")
    n = count("experts", experts, 1, "it is E, the number of experts")
    if is_plain(index) and index.is_cpu and bool(((index < -1) | (index >= n)).any()):
        raise ValueError(f"index must be from 0 to {n - 1}, or -1 for none, got {index.min()} to {index.max()}")
    slots = torch.zeros(n + 1, dtype=a.dtype, device=a.device)  # the last one for the index -1
    return slots.index_add(0, torch.where(index < 0, n, index).flatten(), a.flatten())[:n]


@overridable
def router_z(
    logits: Tensor,
    *,
    dim: int = -1,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""Keeps a router's logits small, which a softmax alone does not: a shift of a row changes no probability.

    .. math:: \ell = \Big(\log \sum_k e^{x_k}\Big)^2

    Args:
        logits: x ``(..., K)`` (K at ``dim``), any floating dtype: as they come from the layer, not log-probabilities.
        dim, mask, weight, reduction: as for :func:`kl_to_uniform`.

    Returns:
        float32 (float64 for float64 logits), 0-d, or the shape of the logits without ``dim`` with ``"none"``; 0 for a
        row that allows nothing.

    Gradient:
        :math:`2 \log Z\, \mathrm{softmax}(x)`, exact.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> softdraw.losses.router_z(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor(11.6118)

    Source:
        Zoph et al. (2022), "ST-MoE: designing stable and transferable sparse expert models", eq. 5.
    """
    rows = kept_rows(logits, dim, mask, weight, reduction)
    x = rows.x.to(compute_dtype(logits.dtype))
    x = without(x, None if rows.keep is None else rows.keep.unsqueeze(-1))
    return reduce(numerics.logsumexp(x).squeeze(-1).square(), rows.keep, rows.weight, reduction)
