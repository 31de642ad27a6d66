"""Divergences of the law that the logits give: from the uniform one, from a prior; and its entropy."""

from __future__ import annotations

import math

from torch import Tensor

from softdraw.arguments import compute_dtype
from softdraw.checks import check_device, check_floating
from softdraw.kernels.pass_reference import Rows, reduced
from softdraw.losses.common import aligned, kept_rows
from softdraw.operators import passes
from softdraw.overrides import overridable
from softdraw.tensors import split_over_categories


@overridable
def kl_to_uniform(
    logits: Tensor,
    *,
    dim: int = -1,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""The divergence of each row's law from the uniform one: the usual penalty of a discrete autoencoder.

    .. math:: \mathrm{KL}(q \,\|\, u) = \sum_k q_k (\log q_k + \log K), \qquad q = \mathrm{softmax}(x)

    Args:
        logits: x ``(..., K)`` (K at ``dim``), any floating dtype.
        dim: the dimension of the categories; K is its size, forbidden (-inf) categories included.
        mask: bool, True = counted, of the shape of the logits without ``dim``, 1 where it is the same along a
            dimension. Rows left out are not looked at and get zero gradient.
        weight: of a row, shapes as for ``mask``.
        reduction: ``"mean"`` is :math:`\sum w \ell / \sum w` over the rows kept, so it does not grow with the batch or
            the number of positions; ``"sum"`` is :math:`\sum w \ell`, ``"none"`` :math:`w \ell` for every row.

    Returns:
        float32 (float64 for float64 logits), 0-d, or the shape of the logits without ``dim`` with ``"none"``;
        from 0 to log K nats a row.

    Gradient:
        :math:`q_k (\log q_k + H(q))`, exact; zero where q is zero.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> softdraw.losses.kl_to_uniform(torch.tensor([[0.0, 0.0], [0.0, float("-inf")]]), reduction="none")
        tensor([0.0000, 0.6931])

    Source:
        Kullback and Leibler (1951), "On information and sufficiency", eq. 2.4.
    """
    rows = kept_rows(logits, dim, mask, weight, reduction)
    if split_over_categories(rows.x):
        return _reduced(math.log(rows.x.shape[-1]) - _entropy_of_split(rows), rows, reduction)
    return passes.entropy(rows, 1.0, math.log(rows.x.shape[-1]), reduction=reduction)


@overridable
def kl_to_prior(
    logits: Tensor,
    prior_logits: Tensor,
    *,
    dim: int = -1,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""The divergence of each row's law from a prior's, both from logits.

    .. math:: \mathrm{KL}(q \,\|\, p) = \sum_k q_k (\log q_k - \log p_k),
        \qquad q = \mathrm{softmax}(x), \quad p = \mathrm{softmax}(\text{prior})

    Args:
        logits: x ``(..., K)`` (K at ``dim``), any floating dtype.
        prior_logits: ``(K,)``, or as many dimensions as the logits, each 1 or the size (K at ``dim``). May be learned.
        dim, mask, weight, reduction: as for :func:`kl_to_uniform`.

    Returns:
        float32 (float64 for float64 logits), 0-d, or the shape of the logits without ``dim`` with ``"none"``; inf where
        the prior forbids a category that the row allows.

    Gradient:
        :math:`q_k (\log q_k - \log p_k - \mathrm{KL})` for the logits, exact, and :math:`p_k - q_k` for the prior's.
        Where the loss is inf it is huge and finite, away from the forbidden categories.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> prior = torch.tensor([2.0, 0.0])
        >>> softdraw.losses.kl_to_prior(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), prior, reduction="none")
        tensor([0.0000, 0.4338])

    Source:
        Kullback and Leibler (1951), "On information and sufficiency", eq. 2.4.
    """
    x, *rest = kept_rows(logits, dim, mask, weight, reduction)
    prior = _prior(prior_logits, logits, dim)
    if split_over_categories(x):
        from softdraw.distributed import dtensor

        return reduced(dtensor.kl_to_prior(x, prior), rest[-2], rest[-1], reduction)
    dtype = compute_dtype(x.dtype)
    rows = Rows(x, prior if prior.dtype == dtype else prior.to(dtype), *rest[1:])
    return passes.kl_with_slope(rows, reduction=reduction)


@overridable
def entropy(
    logits: Tensor,
    *,
    dim: int = -1,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""The entropy of each row's law, in nats: subtract it to keep draws spread, add it to make them certain.

    .. math:: H(q) = -\sum_k q_k \log q_k, \qquad q = \mathrm{softmax}(x)

    Args:
        logits: x ``(..., K)`` (K at ``dim``), any floating dtype. A forbidden (-inf) category adds nothing.
        dim, mask, weight, reduction: as for :func:`kl_to_uniform`.

    Returns:
        float32 (float64 for float64 logits), 0-d, or the shape of the logits without ``dim`` with ``"none"``;
        from 0 to log K nats a row.

    Gradient:
        :math:`-q_k (\log q_k + H)`, exact; zero where q is zero.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> softdraw.losses.entropy(torch.tensor([[0.0, 0.0], [0.0, float("-inf")]]), reduction="none")
        tensor([0.6931, 0.0000])

    Source:
        Shannon (1948), "A mathematical theory of communication", sec. 6.
    """
    rows = kept_rows(logits, dim, mask, weight, reduction)
    if split_over_categories(rows.x):
        return _reduced(_entropy_of_split(rows), rows, reduction)
    return passes.entropy(rows, -1.0, 0.0, reduction=reduction)


def _entropy_of_split(rows: Rows) -> Tensor:
    """The entropies of a DTensor that is split over its categories."""
    from softdraw.distributed import dtensor

    return dtensor.entropy(rows.x)


def _reduced(loss: Tensor, rows: Rows, reduction: str) -> Tensor:
    return reduced(loss, rows.keep, rows.weight, reduction)


def _prior(prior_logits: Tensor, logits: Tensor, dim: int) -> Tensor:
    """The prior's logits with the categories last, at a shape that broadcasts to the rows of the logits."""
    check_floating("prior_logits", prior_logits)
    if prior_logits.shape == (logits.shape[dim],):
        check_device("prior_logits", prior_logits, logits.device)
        return prior_logits
    return aligned("prior_logits", prior_logits, logits, "the logits").movedim(dim, -1)
