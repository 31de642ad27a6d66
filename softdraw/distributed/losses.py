"""Losses of rows whose categories are split over ranks."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn.functional import pad

from softdraw.arguments import broadcasts, compute_dtype
from softdraw.checks import check_device, check_floating, check_mask, check_real, given
from softdraw.distributed import law
from softdraw.distributed.blocks import Block, prepare
from softdraw.distributed.collectives import gather
from softdraw.kernels.pass_reference import reduced
from softdraw.numerics import times

_REDUCTIONS = ("mean", "sum", "none")


def categorical_nll(
    block: Tensor,
    target: Tensor,
    col_start: int,
    group: ProcessGroup | None = None,
    *,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""The loss of :func:`softdraw.losses.categorical_nll` of rows whose categories are split over ranks.

    .. math:: \ell = -\sum_k t_k \log\mathrm{softmax}(x)_k

    Args:
        block, col_start, group: as for :func:`softdraw.distributed.gumbel_softmax`; -inf is a forbidden category, as
            in padding.
        target: indices in the whole row, integers of the batch's shape, the same on every rank; or the block of a
            distribution, of the shape of the logits' block.
        mask: bool, True = counted, of the batch's shape. A row left out gets zero gradient.
        weight: of a row, of the batch's shape.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``, over rows.

    Returns:
        float32 (float64 for float64 logits), the same on every rank. One all-gather of 12 bytes a row and rank, 16 with
        a distribution.

    Gradient:
        :math:`\mathrm{softmax}(x) - t`, exact. The backward pass sends nothing.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> block = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.5]])  # this rank's: here the only one, with all columns
        >>> softdraw.distributed.categorical_nll(block, torch.tensor([2, 0]), 0)
        tensor(0.4360)

    Source:
        Shoeybi et al. (2019), "Megatron-LM", section 3.
    """
    own = prepare(block, col_start, group, None)
    check_real("target", target)
    if target.shape == block.shape:
        loss = nll_of_distribution(own, filled_with(target, 0))
    else:
        law.check_index("target", target, own)
        at = target.long() if mask is None else target.long().masked_fill(~_kept(mask, own), 0)
        loss = -law.log_probs_of(own, at)
    return _reduced(loss, own, mask, weight, reduction)


def nll_of_distribution(block: Block, t: Tensor) -> Tensor:
    """The cross-entropy of checked blocks: sum t (log total + top) - sum t x, each sum relative to the block's top."""
    x = block.wide()
    t = t.to(x.dtype)
    top, own = law.sums(x)
    z = x - torch.where(top == -math.inf, 0, top).unsqueeze(-1)
    dot, mass = times(t, z).sum(-1, dtype=torch.float64), t.sum(-1, dtype=torch.float64)
    every = gather((top, own, dot.to(x.dtype), mass.to(x.dtype)), block.group)
    whole = law.Whole.of(every[0], every[1], torch.zeros_like(every[1]))
    shift = torch.where(every[0] == -math.inf, 0, every[0]).double() - whole.top
    return (every[3].double() * (whole.log_total - shift) - every[2].double()).sum(0).to(x.dtype)


def kl_to_uniform(
    block: Tensor,
    col_start: int,
    group: ProcessGroup | None = None,
    *,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""The loss of :func:`softdraw.losses.kl_to_uniform` of rows whose categories are split over ranks.

    .. math:: \mathrm{KL}(q \,\|\, u) = \sum_k q_k (\log q_k + \log K), \qquad q = \mathrm{softmax}(x)

    Args:
        block, col_start, group, mask, weight, reduction: as for :func:`softdraw.distributed.categorical_nll`.
            K is the number of categories of all ranks, forbidden ones included.

    Returns:
        As :func:`softdraw.distributed.categorical_nll`. One all-gather of 16 bytes a row and rank.

    Gradient:
        :math:`q_k (\log q_k + H(q))`, exact. The backward pass sends nothing.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> block = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.5]])  # this rank's: here the only one, with all columns
        >>> softdraw.distributed.kl_to_uniform(block, 0)
        tensor(0.2294)

    Source:
        Kullback and Leibler (1951), "On information and sufficiency", eq. 2.4.
    """
    own = prepare(block, col_start, group, None)
    x = own.wide()
    last = torch.full(x.shape[:-1], max(col_start + block.shape[-1] - 1, 0), dtype=torch.int64, device=x.device)
    *every, ends = gather((*law.numbers(x), last), own.group)
    categories = (ends.amax(0) + 1).double()
    loss = categories.log() - law.Whole.of(*every).entropy()
    return _reduced(loss.to(x.dtype), own, mask, weight, reduction)


def kl_to_prior(
    block: Tensor,
    prior_block: Tensor,
    col_start: int,
    group: ProcessGroup | None = None,
    *,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""The loss of :func:`softdraw.losses.kl_to_prior` of rows whose categories are split over ranks.

    .. math:: \mathrm{KL}(q \,\|\, p) = \sum_k q_k (\log q_k - \log p_k),
        \qquad q = \mathrm{softmax}(x), \quad p = \mathrm{softmax}(\text{prior})

    Args:
        block, col_start, group, mask, weight, reduction: as for :func:`softdraw.distributed.categorical_nll`.
        prior_block: this rank's block of the prior's logits; broadcasts to the block. May be learned.

    Returns:
        As :func:`softdraw.distributed.categorical_nll`; inf where the prior forbids a category that the row allows.
        One all-gather of 20 bytes a row and rank.

    Gradient:
        :math:`q_k (\log q_k - \log p_k - \mathrm{KL})` and, for the prior, :math:`p_k - q_k`, exact. The backward pass
        sends nothing.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> block = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.5]])  # this rank's: here the only one, with all columns
        >>> softdraw.distributed.kl_to_prior(block, torch.zeros(3), 0)
        tensor(0.2294)

    Source:
        Kullback and Leibler (1951), "On information and sufficiency", eq. 2.4.
    """
    own = prepare(block, col_start, group, None)
    check_floating("prior_block", prior_block)
    check_device("prior_block", prior_block, block.device, "block")
    if not broadcasts(prior_block.shape, block.shape):
        raise ValueError(
            f"prior_block of shape {tuple(prior_block.shape)} does not broadcast to the block of shape "
            f"{tuple(block.shape)}: it is the same columns of the prior"
        )
    loss = kl_of_blocks(own, filled_with(prior_block.expand(block.shape), -math.inf))
    return _reduced(loss, own, mask, weight, reduction)


def kl_of_blocks(block: Block, prior: Tensor) -> Tensor:
    """The divergence of each row from its prior, of checked blocks: of the block, and of the category in it."""
    x = block.wide()
    y = prior.to(x.dtype)
    q, p = law.numbers(x), law.sums(y)
    log_q, log_p = (law.log_softmax(t, n[0]) for t, n in ((x, q), (y, p)))
    cross = times(log_q.exp(), log_p).sum(-1, dtype=torch.float64).to(x.dtype)
    every = gather((q[0], q[1], q[2] - cross, p[0], p[1]), block.group)
    ours = law.Whole.of(*every[:3])
    theirs = law.Whole.of(every[3], every[4], torch.zeros_like(every[4]))
    apart = times(ours.share, ours.log_share) - times(ours.share, theirs.log_share)
    return (apart + times(ours.share, ours.mean)).sum(0).to(x.dtype)


def filled_with(t: Tensor, value: float) -> Tensor:
    """Another operand of the logits' shape, with the one column that a rank without categories was given."""
    return t if t.shape[-1] else pad(t, (0, 1), value=value)


def _kept(mask: Tensor, block: Block) -> Tensor:
    batch = block.x.shape[:-1]
    check_mask(mask, block.x.device, "counted", "block")
    if mask.dim() != len(batch) or not broadcasts(mask.shape, batch):
        raise ValueError(f"mask must have the shape of the batch, {tuple(batch)}, got {tuple(mask.shape)}")
    return mask.expand(batch)


def _reduced(loss: Tensor, block: Block, mask: Tensor | None, weight: Tensor | None, reduction: object) -> Tensor:
    """The loss of the rows that count, reduced."""
    if not isinstance(reduction, str) or reduction not in _REDUCTIONS:
        raise ValueError(f"reduction must be one of 'mean', 'sum', 'none', got {given(reduction)}")
    keep = None if mask is None else _kept(mask, block)
    if weight is not None:
        check_real("weight", weight)
        check_device("weight", weight, loss.device, "block")
        if weight.dim() != loss.dim() or not broadcasts(weight.shape, loss.shape):
            raise ValueError(f"weight must have the shape of the batch, {tuple(loss.shape)}, got {tuple(weight.shape)}")
        weight = weight.expand(loss.shape).to(compute_dtype(block.x.dtype))
    if keep is not None:
        loss = loss.masked_fill(~keep, 0)
    return reduced(loss, keep, weight, reduction)
