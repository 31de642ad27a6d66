"""The picture of coarse noise: how often each token is drawn, over how often it should be; imports matplotlib."""

from __future__ import annotations

from matplotlib.axes import Axes

from softdraw.reproduce.precision import step

SHARE = 1 / 1024
# (label, colour, line, where the noise begins, whether it lies on a grid)
LINES = [
    ("softdraw and float64", "#1f9e77", "-", 2.0**-64, False),
    ("begins at 2^-31 (tl.rand)", "#4fa8d8", "-", 2.0**-31, False),
    ("torch.rand", "#d9822b", "-", 2.0**-24, True),
    ("begins at 2^-24", "#d9822b", ":", 2.0**-24, False),
]


def draw(axes: Axes) -> None:
    """A line for each noise: tokens from the rarest to the most likely, and the ratio of their rates."""
    for label, colour, line, first, grid in LINES:
        found = step(SHARE, first, grid)
        ratio = found.drawn * found.rate / found.true
        axes.plot((SHARE * found.true).numpy(), ratio.numpy(), line, color=colour, linewidth=1.8, label=label)
    axes.set(xscale="log", ylim=(-0.03, 1.08))
    axes.set_xlabel("probability of a token in one step")
    axes.set_ylabel("how often it is drawn,\nover how often it should be")
    axes.legend(loc="lower right", frameon=False)
