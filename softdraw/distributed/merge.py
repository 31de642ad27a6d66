r"""One row's results from those of its blocks: pure functions over a leading dimension of blocks, ``(P, *batch)``.

A sum of exponentials is kept as its top and the total relative to it, ``sum exp(x / tau) = exp(top / tau) total``: a
large top would round the logarithm of the total away. Totals are merged in float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_BEYOND = 2**62  # larger than any category


def best(index: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """The index of the highest score and that score, ``batch``, from those of the blocks.

    ``index`` is int64 and global; a block that allows nothing has the score -inf, one that breaks its row has NaN. Ties
    go to the smallest index. -1 where no block has a draw or one is broken: the score is then -inf or NaN.
    """
    top = score.amax(0)  # NaN where any block is
    at = torch.where((score == top) & (index >= 0), index, _BEYOND).amin(0)
    return torch.where(top.isfinite(), at, -1), top


def shares(top: Tensor, total: Tensor, tau: float | Tensor = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """The top and the total of the row, and the share of it that each block has, ``(P, *batch)``, in float64.

    A block that allows nothing has the top -inf and no share; in a row that allows nothing the total is 0.
    """
    most = top.amax(0)
    base = torch.where(most == -math.inf, 0, most)
    tau = tau.double() if isinstance(tau, Tensor) else tau
    each = ((top.double() - base.double()) / tau).exp() * total.double()
    whole = each.sum(0)
    return most, whole, each / torch.where(whole == 0, 1, whole)
