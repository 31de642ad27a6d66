r"""The noise a rule may use: that of the draw itself and more of it, conditional on the sample, made from the seed.

A draw of C categories uses the columns 0 .. C-1 of its row and stream. What a rule needs besides comes from a seed of
its own, fold_in(seed, "conditional"): block k lies at the columns kC .. (k+1)C - 1 of the same row and stream, so
nothing is stored. It shares nothing with any draw. Two laws that share a seed and row ids share their draws' noise, and
these columns as well. A given sample (``value=``) may have been drawn with the very same seed, so noise given it comes
from these blocks alone.

The Gumbel scores s = theta + G given that x is their argmax, with E_j = exp(-G_j) iid Exp(1) and Z = sum exp(theta):

.. math:: s_x = -\log E_x + \log Z, \qquad s_j = -\log(E_j e^{-\theta_j} + E_x / Z) \quad (j \ne x)

for the maximum has the law Gumbel(log Z) whatever x is, and the others are Gumbels truncated at it.
(Maddison, Tarlow and Minka 2014, "A* sampling"; Paulus, Maddison and Krause 2021.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from softdraw.numerics import condition
from softdraw.operators import draws
from softdraw.operators.keys import conditional
from softdraw.tensors import is_dtensor, noise_of_rows

_CHUNK = 2**20  # noise values held at once by `conditional`


@dataclass(frozen=True)
class Noise:
    """The noise of ``samples`` draws from one batch of logits; ``rows`` is int64 of shape ``(1, *batch, 1)``.

    ``drawn`` says that the sample is the argmax of this very noise; a given sample (``value=``) is not, and its scores
    are drawn conditionally on it.
    """

    seed: Tensor
    rows: Tensor
    drawn: bool

    def gumbel(self, like: Tensor) -> Tensor:
        """The Gumbel noise of draws ``like`` (samples, *batch, C)."""
        return self._made(like, 0, 1, lambda seed: seed)[0]

    def more(self, like: Tensor, block: int, blocks: int = 1) -> Tensor:
        """Gumbel noise that made no draw, ``(blocks, *like.shape)``."""
        return self._made(like, block, blocks, conditional)

    def scores(self, logits: Tensor, sample: Tensor) -> Tensor:
        """Scores whose argmax is the sample: logits plus the draw's own noise; conditional ones for a given sample."""
        return logits + self.gumbel(logits) if self.drawn else condition(logits, sample, self.more(logits, 0)[0])

    def conditional(self, logits: Tensor, sample: Tensor, count: int) -> Iterator[Tensor]:
        """Independent conditional scores, ``count`` of them in chunks ``(chunk, *logits.shape)``; independent of
        ``scores`` as well."""
        first, step = 0 if self.drawn else 1, max(1, _CHUNK // max(1, logits.numel()))
        for block in range(first, first + count, step):
            yield condition(logits, sample, self.more(logits, block, min(step, first + count - block)))

    def _made(self, like: Tensor, block: int, blocks: int, key: Callable[[Tensor], Tensor]) -> Tensor:
        if is_dtensor(like):
            return noise_of_rows(
                lambda x, rows, seed: replace(self, rows=rows, seed=seed)._made(x, block, blocks, key),
                like,
                self.rows,
                self.seed,
            )
        samples, categories = like.shape[0], like.shape[-1]
        stream = torch.arange(samples, device=like.device).view(-1, *[1] * (like.dim() - 1))
        rows, seed = self.rows.expand(*like.shape[:-1], 1), key(self.seed)
        g = draws.gumbel_noise(seed, rows, stream, blocks * categories, block * categories, like.dtype)
        return g.unflatten(-1, (blocks, categories)).movedim(-2, 0)
