"""How often each token is drawn with coarse noise: python docs/pictures/precision.py

One step of a masked diffusion model, by the formula of softdraw reproduce precision.
"""

from __future__ import annotations

from matplotlib.figure import Figure
from style import new_figure, write

from softdraw.reproduce import precision_picture


def make() -> Figure:
    figure = new_figure(6.5, 3.2)
    precision_picture.draw(figure.subplots())
    return figure


if __name__ == "__main__":
    write("precision", "svg", make)
