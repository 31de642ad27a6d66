"""Indices drawn from rows that are split over ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.distributed import ProcessGroup

from softdraw.arguments import compute_dtype, number_a_row, prepare_shape
from softdraw.checks import number
from softdraw.distributed import law, merge
from softdraw.distributed.blocks import Block, Key, drawn, leader, prepare, prepare_key, scores
from softdraw.distributed.collectives import gather
from softdraw.kernels import reference
from softdraw.noise import STREAMS


class ShardedIndexDraw(NamedTuple):
    """What :func:`softdraw.distributed.draw_index` returns: three tensors ``(*sample_shape, *batch)``, equal on all
    ranks."""

    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]  (tuple.index, which nobody calls here)
    log_prob: Tensor
    entropy: Tensor


def gumbel_max(
    block: Tensor,
    col_start: int,
    group: ProcessGroup | None = None,
    *,
    seed: int | Tensor,
    rows: int | Tensor = 0,
    mask: Tensor | None = None,
    sample_shape: Sequence[int] = (),
) -> Tensor:
    r"""The index of :func:`softdraw.gumbel_max`, drawn from rows whose categories are split over ranks.

    .. math:: x = \arg\max_r m_r, \qquad m_r = \max_{j \in r} (\theta_j + G_j)

    Args:
        block, col_start, group, seed, rows, mask: as for :func:`softdraw.distributed.gumbel_softmax`.
        sample_shape: shape of independent draws, each with a noise stream of its own; the first is the plain draw.

    Returns:
        int64 of shape ``(*sample_shape, *batch)``, the same on every rank: the index in the whole row, bit for bit that
        of the whole row on one rank. Ties go to the smallest index; -1 where there is no draw. One all-gather, of a
        score and an index: 8 bytes a draw and rank (16 for float64).

    Gradient:
        None: an index has no gradient.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> block = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.5]])  # this rank's: here the only one, with all columns
        >>> softdraw.distributed.gumbel_max(block, 0, seed=0)
        tensor([2, 0])

    Source:
        Gumbel (1954), "Statistical theory of extreme values".
    """
    own = prepare(block, col_start, group, mask)
    shape = prepare_shape("sample_shape", sample_shape, most=STREAMS)
    index, _ = highest(own, prepare_key(own, seed, rows), math.prod(shape))
    return index.view(*shape, *block.shape[:-1])


def highest(block: Block, key: Key, samples: int) -> tuple[Tensor, Tensor]:
    """The global index of every draw and its score, ``(samples, *batch)``."""
    at, score = drawn(block, key, samples)
    every = gather((score, at + block.col_start), block.group)
    return merge.best(every[1], every[0])


def draw_index(
    block: Tensor,
    col_start: int,
    group: ProcessGroup | None = None,
    *,
    temperature: float | Tensor = 1.0,
    seed: int | Tensor,
    rows: int | Tensor = 0,
    mask: Tensor | None = None,
    sample_shape: Sequence[int] = (),
) -> ShardedIndexDraw:
    r"""The draw of :func:`softdraw.draw_index` from rows whose categories are split over ranks.

    .. math:: i = \arg\max_j (x_j / T + G_j), \qquad \ell = \log p_i, \quad H = -\sum_j p_j \log p_j, \quad
        p = \mathrm{softmax}(x)

    Args:
        block, col_start, group, seed, rows, mask: as for :func:`softdraw.distributed.gumbel_softmax`.
        temperature: T >= 0, a number or a tensor, one for each row; 0 is the argmax. Truncation (top_k, top_p, min_p)
            needs whole rows: it is not here.
        sample_shape: shape of independent draws, each with a noise stream of its own; the first is the plain draw.

    Returns:
        ``(index, log_prob, entropy)``, each ``(*sample_shape, *batch)`` and the same on every rank, as from
        :func:`softdraw.draw_index`. One all-gather of six numbers: 24 bytes a row and rank (48 for float64).

    Gradient:
        Exact, for ``log_prob`` and ``entropy``. The backward pass sends nothing.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> block = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.5]])  # this rank's: here the only one, with all columns
        >>> softdraw.distributed.draw_index(block, 0, temperature=0.5, seed=0).log_prob
        tensor([-0.4076, -0.4644])

    Source:
        Gumbel (1954), "Statistical theory of extreme values".
    """
    own = prepare(block, col_start, group, mask)
    t = _temperature(temperature, own)
    shape = prepare_shape("sample_shape", sample_shape, most=STREAMS)
    said = drawn_index(own, prepare_key(own, seed, rows), t, math.prod(shape))
    whole = (*shape, *block.shape[:-1])
    return ShardedIndexDraw(said[0].view(whole), said[1].view(whole), said[2].expand(whole))


def drawn_index(
    block: Block, key: Key, temperature: float | Tensor | None, samples: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The index and its log-probability, ``(samples, *batch)``, and the entropy, ``batch``."""
    at, score = drawn(block, key, samples) if temperature is None else _tempered(block, key, temperature, samples)
    x = block.wide()
    chosen = x.expand(samples, *x.shape).gather(-1, at.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    top, own, mean = law.numbers(x)
    every = gather((score, at + block.col_start, chosen, top, own, mean), block.group)
    index, best = merge.best(every[1], every[0])
    mine = (every[1] == index) & (every[0] == best)
    whole = law.Whole.of(*every[3:])
    log_prob = whole.log_prob(torch.where(mine, every[2], 0).sum(0))
    log_prob = log_prob.masked_fill(best == -math.inf, -math.inf).masked_fill(best.isnan(), math.nan)
    return index, log_prob, whole.entropy().to(x.dtype)


def _tempered(block: Block, key: Key, temperature: float | Tensor, samples: int) -> tuple[Tensor, Tensor]:
    made = [leader(scores(block._replace(x=block.x.detach()), key, i, temperature)) for i in range(samples)]
    if not made:
        return drawn(block, key, 0)
    at, score = (torch.stack(x) for x in zip(*made, strict=True))
    return torch.where(score.isfinite(), at, -1), score


def _temperature(temperature: float | Tensor, block: Block) -> float | Tensor | None:
    """None for 1, whose draw is one pass."""
    dtype = compute_dtype(block.x.dtype)
    if isinstance(temperature, Tensor):
        if temperature.dim() and temperature.shape == block.x.shape[:-1]:
            temperature = temperature.unsqueeze(-1)
        t = number_a_row("temperature", temperature, block.x, block.x.dim() - 1).detach()
        return t.to(dtype) if is_compiling() else reference.checked_temperature(t, dtype)
    t = float(number("temperature", temperature))
    if not 0 <= t < math.inf:
        raise reference.temperature_error(t)
    return None if t == 1 else min(t, reference.temperature_max(dtype))
