r"""Noise by hand from ``torch.rand`` against the law, and what its chi-square statistic has to be.

One likely category and three groups of rare ones, whose probabilities are 1, 1/2 and 1/4 of the step 2^-b of the
uniforms. Expected counts are E, those of the coarse law are M, and O, what is drawn, is Poisson(M):

    X^2 = sum (O - E)^2 / E,   mean X^2 = sum (M + (M - E)^2) / E,
    var X^2 = sum (M + 2 M^2 + 4 M (M - E) + 4 M (M - E)^2) / E^2

over the groups; the likely category's own term is within 1e-3 of 0. Under the law X^2 has three degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from softdraw.functional import gumbel_max
from softdraw.reproduce.precision import grid_law, law
from softdraw.reproduce.table import Table

PARTS = (1.0, 1 / 2, 1 / 4)  # of the step
BITS = {torch.float32: 24, torch.float16: 11}  # of the uniforms that torch.rand makes on the CPU
VALUES = 2**31
LEAST = 2**24
_AT_ONCE = 2**22  # noise values

Sampler = Callable[[Tensor, int, int], Tensor]  # (logits (rows, K), seed, first row) -> index (rows,)


@dataclass(frozen=True)
class Problem:
    """The law, and how many draws of it there are."""

    step: float
    each: int  # categories of a group
    draws: int

    @property
    def law(self) -> Tensor:
        rare = torch.tensor(PARTS, dtype=torch.float64).repeat_interleave(self.each) * self.step
        return torch.cat(((1 - rare.sum()).view(1), rare))

    def groups(self, law: Tensor) -> Tensor:
        """The counts that are expected of the three groups under a law of the categories."""
        return self.draws * law[1:].view(len(PARTS), self.each).sum(-1)

    def count(self, sampler: Sampler, seed: int, track: Callable[[range], Iterable[int]]) -> Tensor:
        """How often each group is drawn."""
        logits, found = self.law.log().float(), torch.zeros(len(PARTS), dtype=torch.int64)
        rows = max(1, _AT_ONCE // len(logits))
        for first in track(range(0, self.draws, rows)):
            index = sampler(logits.expand(min(rows, self.draws - first), -1), seed, first)
            found += torch.bincount((index[index > 0] - 1) // self.each, minlength=len(PARTS))
        return found


def problem(values: int = VALUES, bits: int = 24) -> Problem:
    """The problem that spends about ``values`` values of noise."""
    each = 1365 if bits > 16 else 60
    return Problem(2.0**-bits, each, values // (len(PARTS) * each + 1))


def statistic(found: Tensor, expected: Tensor) -> float:
    """X^2 over the groups."""
    return ((found - expected) ** 2 / expected).sum().item()


def p_value(x: float) -> float:
    """The probability that X^2 is as large under the law, or larger."""
    freedom = torch.tensor(len(PARTS) / 2, dtype=torch.float64)
    return torch.special.gammaincc(freedom, torch.tensor(x / 2, dtype=torch.float64)).item()


def predicted(mean: Tensor, expected: Tensor) -> tuple[float, float]:
    """The mean of X^2 and its standard deviation where counts have this mean."""
    off = mean - expected
    middle = ((mean + off**2) / expected).sum()
    variance = ((mean + 2 * mean**2 + 4 * mean * off + 4 * mean * off**2) / expected**2).sum()
    return middle.item(), math.sqrt(variance.item())


def by_hand(dtype: torch.dtype = torch.float32) -> Sampler:
    """Gumbel noise as it is written by hand, from uniforms of a dtype; the logarithms are taken in float32."""

    def draw(logits: Tensor, seed: int, first: int) -> Tensor:
        generator = torch.Generator().manual_seed(2**32 * seed + first)
        u = torch.rand(logits.shape, dtype=dtype, generator=generator).float()
        return (logits - (-u.log_()).log_()).argmax(-1)

    return draw


def ours(logits: Tensor, seed: int, first: int) -> Tensor:
    return gumbel_max(logits, seed=seed, rows=first)


def run(
    values: int = VALUES,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    track: Callable[[range], Iterable[int]] = iter,
) -> Table:
    """The table; ``track`` wraps the steps of a sampler, for a progress bar."""
    bits = BITS[dtype]
    at = problem(values, bits)
    expected = at.groups(at.law)
    rows = []
    for label, found in (
        ("exact", expected),
        (f"predicted: noise that begins at 2^-{bits}", at.groups(law(at.law, at.step))),
        ("predicted: torch.rand", at.groups(grid_law(at.law, at.step))),
    ):
        mean, deviation = predicted(found, expected)
        rows.append((label, *(f"{x:.1f}" for x in found.tolist()), f"{mean:.1f} +- {deviation:.1f}", ""))
    for label, sampler in (("drawn: torch.rand", by_hand(dtype)), ("drawn: softdraw", ours)):
        found = at.count(sampler, seed, track)
        x = statistic(found, expected)
        rows.append((label, *map(str, found.tolist()), f"{x:.1f}", f"{p_value(x):.1g}"))
    names = (f"p=2^-{bits + shift}" for shift in range(len(PARTS)))
    header = ("draws of groups of rare categories", *names, "chi-square", "p")
    title = f"{at.draws:,} draws of {3 * at.each + 1:,} categories, {at.each:,} of each rare probability p"
    return Table(title, header, rows, NOTE)


NOTE = """drawn: torch.rand is (logits - (-torch.rand(logits.shape).log()).log()).argmax(-1). Its uniforms are multiples
of the step, so that its noise is that of the grid; noise that begins there without a grid would do worse."""
