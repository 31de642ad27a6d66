"""What the law of a row says whose categories are split over ranks: log-probabilities and the entropy.

Every rank gathers a few numbers of each block and computes the result of the row from them in differentiable steps. So
autograd has the gradient of its block, exactly, and no gradient is sent.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from softdraw.checks import INTEGERS, check_device, check_tensor, given
from softdraw.distributed.blocks import Block, own_total, prepare
from softdraw.distributed.collectives import gather
from softdraw.numerics import times


class Whole(NamedTuple):
    """The sums of a row from those of its blocks: its largest logit, the logarithm of its total relative to that, the
    share that each block has and its logarithm, ``(P, *batch)``, and the blocks' own means of log p, in float64."""

    top: Tensor
    log_total: Tensor
    share: Tensor
    log_share: Tensor
    mean: Tensor

    @staticmethod
    def of(top: Tensor, total: Tensor, mean: Tensor) -> Whole:
        """From what ``numbers`` gives for each block."""
        most = top.amax(0)
        base = torch.where(most == -math.inf, 0, most).double()
        empty = total == 0
        log_each = torch.where(empty, -math.inf, (top.double() - base) + torch.where(empty, 1, total).double().log())
        nothing = empty.all(0)
        log_total = log_each.masked_fill(nothing, 0).logsumexp(0).masked_fill(nothing, -math.inf)
        log_share = (log_each - log_total).masked_fill(empty, -math.inf)
        return Whole(base, log_total, log_share.exp(), log_share, mean.double())

    def log_prob(self, x: Tensor) -> Tensor:
        """log p of a category with the logit ``x``, in its dtype."""
        return ((x.double() - self.top) - self.log_total).to(x.dtype)

    def entropy(self) -> Tensor:
        """-sum p log p, by the chain rule: of the block, and of the category in it. 0 where nothing is allowed."""
        return (0 - (times(self.share, self.log_share) + self.share * self.mean).sum(0)).to(torch.float64)


def sums(x: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of wide logits and the total of exp(x - top): -inf and 0 where nothing is allowed."""
    top = x.detach().amax(-1)
    return top, own_total(x, top)


def numbers(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``sums``, and sum q log q for the block's own softmax q: 0 where nothing is allowed. NaN or +inf give NaN."""
    top, total = sums(x)
    log_q = log_softmax(x, top)
    return top, total, times(log_q.exp(), log_q).sum(-1, dtype=torch.float64).to(x.dtype)


def log_softmax(x: Tensor, top: Tensor) -> Tensor:
    """log softmax of the block alone; -inf where nothing is allowed."""
    nothing = (top == -math.inf).unsqueeze(-1)
    return x.masked_fill(nothing, 0).log_softmax(-1).masked_fill(nothing, -math.inf)


def log_prob(
    block: Tensor,
    index: Tensor,
    col_start: int,
    group: ProcessGroup | None = None,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    r"""The log-probability of a category under the law of rows whose categories are split over ranks.

    .. math:: \ell = x_i - \log \sum_r \sum_{j \in r} e^{x_j}

    Args:
        block, col_start, group, mask: as for :func:`softdraw.distributed.gumbel_softmax`.
        index: categories of the whole row, integers of the batch's shape; the same on every rank.

    Returns:
        float32 (float64 for float64 logits) of the batch's shape, the same on every rank; -inf for a category that the
        mask forbids or no rank has, NaN for a row with NaN or +inf. One all-gather of 12 bytes a row and rank.

    Gradient:
        :math:`e_i - p`, exact. The backward pass sends nothing.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> block = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.5]])  # this rank's: here the only one, with all columns
        >>> softdraw.distributed.log_prob(block, torch.tensor([2, 0]), 0)
        tensor([-0.4076, -0.4644])

    Example:
        >>> block = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.5]])  # this rank's: here the only one, with all columns
        >>> softdraw.distributed.entropy(block, 0)
        tensor([0.8324, 0.9060])

    Source:
        Shoeybi et al. (2019), "Megatron-LM", section 3, for the cross-entropy that is parallel over the vocabulary.
    """
    own = prepare(block, col_start, group, mask)
    check_index("index", index, own)
    return log_probs_of(own, index.long())


def log_probs_of(block: Block, index: Tensor) -> Tensor:
    """The log-probabilities of checked indices."""
    x = block.wide()
    n = x.shape[-1]
    at = index - block.col_start
    here = (at >= 0) & (at < n)
    chosen = x.gather(-1, at.clamp(0, n - 1).unsqueeze(-1)).squeeze(-1)
    every = gather((*sums(x), chosen.masked_fill(~here, -math.inf)), block.group)
    whole = Whole.of(every[0], every[1], torch.zeros_like(every[1]))
    found = every[2].detach().amax(0)
    nothing = found == -math.inf
    chosen = torch.where(every[2] == -math.inf, 0, every[2]).sum(0)  # one rank has it
    undefined = whole.top.isnan() | (whole.top == math.inf)
    return whole.log_prob(chosen).masked_fill(nothing, -math.inf).masked_fill(undefined, math.nan)


def check_index(name: str, index: Tensor, block: Block) -> None:
    """``index`` has one integer a row."""
    check_tensor(name, index, "tensor of integers")
    if index.dtype not in INTEGERS:
        raise TypeError(f"{name} must be a tensor of integers, got {given(index)}: write {name}.long()")
    check_device(name, index, block.x.device, "block")
    if index.shape != block.x.shape[:-1]:
        raise ValueError(
            f"{name} must have the shape of the block without its categories, {tuple(block.x.shape[:-1])}, got "
            f"{tuple(index.shape)}"
        )


def entropy(block: Tensor, col_start: int, group: ProcessGroup | None = None, *, mask: Tensor | None = None) -> Tensor:
    r"""The entropy of the law of rows whose categories are split over ranks, in nats.

    .. math:: H = -\sum_j p_j \log p_j, \qquad p = \mathrm{softmax}(x)

    Args:
        block, col_start, group, mask: as for :func:`softdraw.distributed.gumbel_softmax`.

    Returns:
        float32 (float64 for float64 logits) of the batch's shape, the same on every rank; 0 where nothing is allowed,
        NaN for a row with NaN or +inf. One all-gather of 12 bytes a row and rank.

    Gradient:
        :math:`-p (\log p + H)`, exact. The backward pass sends nothing.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Source:
        Shannon (1948), "A mathematical theory of communication", section 6.
    """
    own = prepare(block, col_start, group, mask)
    return entropies(own)


def entropies(block: Block) -> Tensor:
    """The entropies of checked blocks."""
    x = block.wide()
    return Whole.of(*gather(numbers(x), block.group)).entropy().to(x.dtype)
