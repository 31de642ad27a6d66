r"""The noise a rule may use: that of the draw itself and more of it, conditional on the sample, made from the seed.

A draw of C categories uses the columns 0 .. C-1 of its row and stream. What a rule needs besides lies in the
columns behind them, block k at kC .. (k+1)C - 1, so nothing is stored. Two laws of other widths under
one seed and row id may share columns, as any two draws with one seed and the same ids do.

The Gumbel scores s = theta + G given that x is their argmax, with E_j = exp(-G_j) iid Exp(1) and Z = sum exp(theta):

.. math:: s_x = -\log E_x + \log Z, \qquad s_j = -\log(E_j e^{-\theta_j} + E_x / Z) \quad (j \ne x)

for the maximum has the law Gumbel(log Z) whatever x is, and the others are Gumbels truncated at it.
(Maddison, Tarlow and Minka 2014, "A* sampling"; Paulus, Maddison and Krause 2021.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from softdraw.numerics import condition
from softdraw.operators import draws
from softdraw.tensors import is_dtensor, noise_of_rows

_CHUNK = 2**20  # noise values held at once by `conditional`


@dataclass(frozen=True)
class Noise:
    """The noise of ``samples`` draws from one batch of logits; ``rows`` is int64 of shape ``(1, *batch, 1)``.

    ``drawn`` says that the sample is the argmax of this very noise (block 0); a given sample (``value=``) is not, and
    its scores are drawn conditionally on it.
    """

    seed: Tensor
    rows: Tensor
    drawn: bool

    def gumbel(self, like: Tensor, block: int, blocks: int = 1) -> Tensor:
        """Gumbel noise for tensors ``like`` (samples, *batch, C): ``blocks`` of it, ``(blocks, *like.shape)``."""
        if is_dtensor(like):
            return noise_of_rows(lambda x, rows: replace(self, rows=rows).gumbel(x, block, blocks), like, self.rows)
        samples, categories = like.shape[0], like.shape[-1]
        stream = torch.arange(samples, device=like.device).view(-1, *[1] * (like.dim() - 1))
        rows = self.rows.expand(*like.shape[:-1], 1)
        g = draws.gumbel_noise(self.seed, rows, stream, blocks * categories, block * categories, like.dtype)
        return g.unflatten(-1, (blocks, categories)).movedim(-2, 0)

    def scores(self, logits: Tensor, sample: Tensor) -> Tensor:
        """Scores whose argmax is the sample: logits plus the draw's own noise; conditional ones for a given sample."""
        g = self.gumbel(logits, 0)[0]
        return logits + g if self.drawn else condition(logits, sample, g)

    def conditional(self, logits: Tensor, sample: Tensor, first: int, last: int) -> Iterator[Tensor]:
        """Independent conditional scores from blocks ``first .. last - 1``, in chunks ``(chunk, *logits.shape)``."""
        step = max(1, _CHUNK // max(1, logits.numel()))
        for block in range(first, last, step):
            yield condition(logits, sample, self.gumbel(logits, block, min(step, last - block)))
