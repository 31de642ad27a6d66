r"""The law that is drawn with coarse noise, computed without a draw.

A draw by Gumbel noise is a race: category j arrives at time E_j / p_j, E_j = exp(-G_j) of the law Exp(1), and the first
one wins. Noise that was made from uniforms of b bits has no E_j below 2^-b, so that a rare category cannot arrive
before 2^-b / p_j. If a likely one has arrived by then, the rare one is not drawn.

``law`` is that of noise that begins at c, E = c + Exp(1). With p sorted ascending and S_i = p_i + ... + p_K

    P(n) = p_n sum_{i <= n} (1/S_i) [exp(c (K-i+1) - c S_i/p_i) - exp(c (K-i+1) - c S_i/p_{i-1})]

(the second term is 0 for i = 1): from time c/p_i to c/p_{i-1} the categories i, ..., K are in the race.

``grid_law`` is that of the uniforms themselves, u = k c for k = 0, ..., 1/c - 1 and E = -log u, as ``torch.rand`` makes
them: E has the values -log(1 - m c), each of probability c. It begins at c as well, but with an atom there, so it loses
about half as much where p is well above c.

The step of a masked diffusion model is the example: [MASK] keeps 1 - d, and the tokens of a vocabulary of 50,257 share
d in proportion to 1, 1/2, 1/3, ...

Source: the problem is that of Zheng et al. (2024), arXiv 2409.02908.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from softdraw.reproduce.table import Table

VOCABULARY = 50_257
SHARES = (1.0, 1 / 128, 1 / 1024, 1 / 4096)  # d: what the tokens have
# (label, where the noise begins, whether it lies on a grid of that step)
NOISES: list[tuple[str, float, bool]] = [
    ("2^-24 (float32)", 2.0**-24, False),
    ("torch.rand, its own grid", 2.0**-24, True),
    ("2^-31 (tl.rand)", 2.0**-31, False),
    ("2^-53 (float64)", 2.0**-53, False),
    ("2^-64 (softdraw)", 2.0**-64, False),
]
_MOST = 2**24  # arrivals that are put in order, all that there are
_LATEST = 40.0  # else those before the likely category has arrived but for exp(-40)

NOTE = """nats: entropy of the drawn token, given that one is drawn. TV: its total variation distance from the true law.
rate: how often a token is drawn, over d. starved: tokens that are drawn at less than 1/1000 of their rate, d = 1/1024.
torch.rand at d = 1 is left out: 7e8 terms."""


def law(p: Tensor, first: float) -> Tensor:
    """The law of the draw from p with noise E = ``first`` + Exp(1), by the formula; in float64, any shape ``(K,)``."""
    x, order = p.double().sort()
    left = torch.arange(len(x), 0, -1, dtype=torch.float64)
    total = x.flip(0).cumsum(0).flip(0)
    entered = torch.exp(first * (left - total / x))
    before = torch.exp(first * (left[1:] - total[1:] / x[:-1]))
    gained = entered.index_add(0, torch.arange(1, len(x)), before, alpha=-1) / total
    return torch.empty_like(x).scatter_(0, order, x * gained.cumsum(0))


def grid_law(p: Tensor, step: float) -> Tensor:
    """The law of the draw from p with noise E = -log(1 - m ``step``), m = 1, 2, ..., each of probability ``step``.

    The arrivals of all categories but the most likely one are put in order, and the race is run through them once.
    There are about 40 p / ``step`` of a category: this is meant for one likely category and many rare ones.
    """
    p = p.double()
    top = int(p.argmax())
    rare, values = torch.cat((p[:top], p[top + 1 :])), round(1 / step) - 1
    end = math.inf if len(rare) * values <= _MOST else _LATEST / p[top].item()
    number = (-torch.expm1(-end * rare) / step).floor().clamp_max(values).long()
    who = torch.repeat_interleave(number)
    m = torch.arange(1, len(who) + 1) - (number.cumsum(0) - number)[who]
    time, order = (-torch.log1p(-m * step) / rare[who]).sort(stable=True)
    who, m = who[order], m[order]
    stays = torch.log1p(-step / (1 - (m - 1) * step))  # log P(E > its m-th value, given E > the one before)
    arrived = (-torch.expm1(-p[top] * time) / step).floor().clamp_max(values)  # values of the likely category, by then
    survived = (stays.cumsum(0) - stays).exp() * (1 - step * arrived)
    drawn = torch.zeros_like(rare).index_add_(0, who, -torch.expm1(stays) * survived)
    if end < math.inf:  # u = 0 keeps the likely category out of the race, and one of the others comes in later
        drawn += step * stays.sum().exp() * rare / rare.sum()
    return torch.cat((drawn[:top], 1 - drawn.sum().view(1), drawn[top:]))


@dataclass(frozen=True)
class Step:
    """What one step of a masked diffusion model draws with a noise, beside what it should draw."""

    drawn: Tensor  # of each token, given that one is drawn
    true: Tensor
    rate: float  # how often a token is drawn, over d

    @property
    def entropy(self) -> float:
        return -torch.special.xlogy(self.drawn, self.drawn).sum().item()

    @property
    def distance(self) -> float:
        """The total variation distance of the two laws."""
        return (self.drawn - self.true).abs().sum().item() / 2

    @property
    def starved(self) -> int:
        """How many tokens are drawn at less than a thousandth of their rate."""
        return int((self.drawn < self.true / 1000).sum())


def tokens(size: int = VOCABULARY) -> Tensor:
    """The law of the tokens, 1/k over their sum."""
    p = 1 / torch.arange(1, size + 1, dtype=torch.float64)
    return p / p.sum()


def step(share: float, first: float, grid: bool, size: int = VOCABULARY) -> Step:
    """The step in which the tokens have ``share`` in all and [MASK] the rest."""
    true = tokens(size)
    p = torch.cat((torch.tensor([1 - share], dtype=torch.float64), share * true)) if share < 1 else true
    drawn = (grid_law if grid else law)(p, first)[-size:]
    return Step(drawn / drawn.sum(), true, drawn.sum().item() / share)


def run(track: Callable[[list], Iterable] = iter) -> Table:
    """The table; ``track`` wraps the list of noises, for a progress bar."""
    true = Step(tokens(), tokens(), 1.0)
    rows = [("exact", *(cell for share in SHARES for cell in _cells(share, true)), "0")]
    for label, first, grid in track(NOISES):
        found = {share: step(share, first, grid) for share in SHARES if share < 1 or not grid}
        starved = found[1 / 1024]
        assert starved is not None
        rows.append(
            (label, *(cell for share in SHARES for cell in _cells(share, found.get(share))), f"{starved.starved:,}")
        )
    header = ["noise begins at"]
    for share in SHARES:
        name = "d=1" if share == 1 else f"1/{1 / share:.0f}"
        header += [f"{name} TV"] if share == 1 else [f"{name} nats", "TV", "rate"]
    title = f"One step of a masked diffusion model, {VOCABULARY:,} tokens: what is drawn"
    return Table(title, (*header, "starved"), rows, NOTE)


def _cells(share: float, found: Step | None) -> list[str]:
    if found is None:
        return ["-"]
    distance = f"{found.distance:.{3 if found.distance >= 0.01 else 2}g}"
    return [distance] if share == 1 else [f"{found.entropy:.3f}", distance, f"{found.rate:.3f}"]
