"""Soft draws of three categories at several tau, on the simplex: python docs/pictures/draws.py"""

from __future__ import annotations

import math

import matplotlib
import torch
from matplotlib.figure import Figure
from style import BLUE, ORANGE, new_figure, write

import softdraw

LOGITS = torch.tensor([0.0, 0.5, 1.0])
TAUS = (0.1, 0.5, 1.0, 2.0, 5.0)
DRAWS = 800
CORNERS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]])


def make() -> Figure:
    figure = new_figure(10, 2.3)
    ink = matplotlib.rcParams["text.color"]
    law = LOGITS.softmax(-1) @ CORNERS
    for axes, tau in zip(figure.subplots(1, len(TAUS)), TAUS, strict=True):
        y = softdraw.gumbel_softmax(LOGITS.expand(DRAWS, 3), tau, seed=0) @ CORNERS
        axes.plot(*CORNERS[[0, 1, 2, 0]].T, color=ink, linewidth=0.8, alpha=0.6)
        axes.scatter(*y.T, s=4, color=BLUE, alpha=0.35, linewidths=0)
        axes.plot(*law, "+", color=ORANGE, markersize=9, markeredgewidth=2)
        axes.set(aspect="equal", xlim=(-0.06, 1.06), ylim=(-0.07, 0.95))
        axes.set_title(f"tau {tau:g}", fontsize=10)
        axes.set_axis_off()
    return figure


if __name__ == "__main__":
    write("draws", "png", make)
