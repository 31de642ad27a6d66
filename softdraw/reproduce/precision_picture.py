"""The picture of coarse noise: how often each token is drawn, over how often it should be; imports matplotlib."""

from __future__ import annotations

import math

import torch
from matplotlib.axes import Axes

from softdraw.reproduce.precision import VOCABULARY, step

SHARE = 1 / 1024
# (label, colour, line, where the noise begins, whether it lies on a grid)
LINES = [
    ("softdraw and float64", "#1f9e77", "-", 2.0**-64, False),
    ("begins at 2^-31 (tl.rand)", "#4fa8d8", "-", 2.0**-31, False),
    ("torch.rand", "#d9822b", "-", 2.0**-24, True),
    ("begins at 2^-24", "#d9822b", ":", 2.0**-24, False),
]


def draw(axes: Axes) -> None:
    """A line for each noise through some 300 tokens: their probability, and the ratio of their rates."""
    shown = torch.logspace(0, math.log10(VOCABULARY), 400).long().sub(1).unique()
    for label, colour, line, first, grid in LINES:
        found = step(SHARE, first, grid)
        ratio = found.drawn * found.rate / found.true
        axes.plot(
            (SHARE * found.true)[shown].numpy(), ratio[shown].numpy(), line, color=colour, linewidth=1.8, label=label
        )
    axes.set(xscale="log", ylim=(-0.03, 1.08))
    axes.set_xlabel("probability of a token in one step")
    axes.set_ylabel("how often it is drawn,\nover how often it should be")
    axes.legend(loc="lower right", frameon=False)
