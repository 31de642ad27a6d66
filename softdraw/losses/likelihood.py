"""The negative log-likelihood of categories under the law that the logits give."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from softdraw.checks import DENSE, check_device, check_real
from softdraw.kernels.native import CHECKS
from softdraw.kernels.pass_reference import Rows, reduced
from softdraw.losses.common import checked, kept_rows, without
from softdraw.operators import passes
from softdraw.overrides import overridable
from softdraw.tensors import PLAIN, is_plain, split_over_categories

_WIDE = (torch.float32, torch.float64)
_SMALL = 1 << 14  # elements: of more, the log-probabilities that torch keeps take more time than the node
_NO_INDEX = -(2**63)


@overridable
def categorical_nll(
    logits: Tensor,
    target: Tensor,
    *,
    dim: int = -1,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""The negative log-likelihood of a category, or the cross-entropy with a distribution over the categories.

    .. math:: \ell = -\sum_k t_k \log\mathrm{softmax}(x)_k

    Args:
        logits: x ``(..., K)`` (K at ``dim``), any floating dtype; never probabilities. -inf is a forbidden category.
        target: indices, integer, of the shape of the logits without ``dim``; or t of the logits' whole shape, every
            row a distribution (bool, integer, floating).
        dim: the dimension of the categories.
        mask: bool, True = counted, of the shape of the logits without ``dim``, 1 where it is the same along a
            dimension. Rows left out are not looked at (NaN or index -100 may stand there) and get zero gradient.
        weight: of a row, shapes as for ``mask``.
        reduction: ``"mean"`` is :math:`\sum w \ell / \sum w` over the rows kept (0 if none is), ``"sum"``
            :math:`\sum w \ell`, ``"none"`` :math:`w \ell` for every row, 0 where it is left out.

    Returns:
        float32 (float64 for float64 logits), 0-d, or the shape of the logits without ``dim`` with ``"none"``.

    Gradient:
        :math:`\mathrm{softmax}(x) - t`, exact; at infinite logits its limit, also where the loss is inf. A row of -inf
        alone has loss inf and gradient zero.

    Raises:
        ValueError: target of another shape; an index outside [0, K) or a row that is no distribution (CPU; an
        assertion in the stream of an accelerator and in compiled code). TypeError: indices that are not integers.

    Example:
        >>> x = torch.tensor([[2.0, 1.0, 0.0], [1.0, float("-inf"), 1.0]])
        >>> softdraw.losses.categorical_nll(x, torch.tensor([0, 2]), reduction="none")
        tensor([0.4076, 0.6931])
        >>> softdraw.losses.categorical_nll(x, torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.0, 0.5]]))
        tensor(0.5504)

    Source:
        McFadden (1974), "Conditional logit analysis of qualitative choice behavior", eq. 18.
    """
    if mask is None and weight is None and type(dim) is int and dim == -1 and type(reduction) is str:
        loss = _by_torch(logits, target, reduction)
        if loss is not None:
            return loss
    rows = kept_rows(logits, dim, mask, weight, reduction)
    check_real("target", target)
    check_device("target", target, logits.device)
    if split_over_categories(rows.x):
        return _split(rows, target, dim, reduction)
    if target.dim() == logits.dim() - 1:
        _check_indices(target, rows.x.shape)
        index = target if target.dtype == torch.int64 else target.long()
        rows = Rows(rows[0], None, None, None, index, rows[5], rows[6])
        return passes.index_nll(rows, reduction=reduction, check=lambda: _check_range(rows))
    t, slack = _distribution(target, logits, dim)
    rows = rows._replace(other=t)
    # The kernels see t in the dtype of the computation. A float64 one is checked before it is rounded to float32.
    exact = t.dtype != torch.float64 or logits.dtype == torch.float64
    if not exact:
        rows = rows._replace(other=_check_distribution(rows, slack).float())
    legal = CHECKS["Distribution" if exact else "Anything"]
    check = (lambda: _check_distribution(rows, slack)) if exact else None
    return passes.nll(rows, 1.0, legal, slack, reduction=reduction, check=check)


def _split(rows: Rows, target: Tensor, dim: int, reduction: str) -> Tensor:
    """The loss of a DTensor that is split over its categories."""
    from softdraw.distributed import dtensor

    if target.dim() == rows.x.dim() - 1:
        _check_indices(target, rows.x.shape)
    else:
        target = _distribution(target, rows.x.movedim(-1, dim), dim)[0]
    return reduced(dtensor.nll(rows.x, target), rows.keep, rows.weight, reduction)


def _by_torch(x: Tensor, index: Tensor, reduction: str) -> Tensor | None:
    """torch's own loss of a small batch, whose node takes less time than one in Python: a finite loss says that all
    logits and indices were ordinary. None for every other call: nothing has been checked then."""
    if not (
        is_plain(x)
        and type(index) in PLAIN
        and x.dtype in _WIDE
        and index.dtype is torch.int64
        and x.dim() == 2
        and index.dim() == 1
        and x.numel() <= _SMALL
        and x.is_cpu
        and index.is_cpu
        and x.layout is DENSE
        and not x.is_nested
        and reduction in ("mean", "sum")
    ):
        return None
    try:
        loss = cross_entropy(x, index, ignore_index=_NO_INDEX, reduction=reduction)
    except (IndexError, ValueError, RuntimeError):  # an index out of range, or another number of them than of rows
        return None
    return loss if 0 < loss.item() < math.inf else None


def _check_indices(target: Tensor, shape: torch.Size) -> None:
    if target.is_floating_point() or target.dtype == torch.bool:
        raise TypeError(
            f"target of shape {tuple(target.shape)} must be integer indices, got {target.dtype}: write target.long(), "
            f"or give a distribution over the {shape[-1]} categories for every row"
        )
    if target.shape != shape[:-1]:
        raise ValueError(
            f"target must have the shape of the logits without dim, {tuple(shape[:-1])}, got {tuple(target.shape)}"
        )


def _check_range(rows: Rows) -> None:
    """Every row that counts has a category."""
    index, count = rows.category, rows.x.shape[-1]
    index = without(index, rows.keep)
    checked(index, (index >= 0) & (index < count), "target", f"an index from 0 to {count - 1}")


def _distribution(target: Tensor, logits: Tensor, dim: int) -> tuple[Tensor, float]:
    """The target with its categories last, and how far the sums of its rows may be from 1."""
    if target.shape != logits.shape:
        raise ValueError(
            f"target must be indices of the shape of the logits without dim={dim}, or distributions of the logits' "
            f"shape {tuple(logits.shape)}, got {tuple(target.shape)}"
        )
    t = target.movedim(dim, -1)
    return t, 1e-3 + 4 * (torch.finfo(t.dtype).eps if t.is_floating_point() else 0)  # of probabilities in their dtype


def _check_distribution(rows: Rows, slack: float) -> Tensor:
    """The target, once every row that counts has numbers from 0 to 1 that sum to 1."""
    t = rows.other if rows.other.dtype == torch.float64 else rows.other.to(torch.float32)
    if rows.keep is not None:
        t = t.masked_fill(~rows.keep.unsqueeze(-1), 1 / t.shape[-1])
    t = checked(t, (t >= 0) & (t <= 1), "target", "from 0 to 1")
    total = t.detach().sum(-1, dtype=torch.float64)
    checked(total, (total - 1).abs() <= slack, "the sum over the categories of each row of target", "1")
    return t
