"""What the pictures share: a light and a dark version of each, with nothing behind them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

IMAGES = Path(__file__).parents[1] / "images"
INKS = {"light": "#33363d", "dark": "#c9ced8"}
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, GREY = (
    "#3f6fd1", "#d9822b", "#1f9e77", "#c874a8", "#c9a227", "#4fa8d8", "#8a8f98",
)  # fmt: skip


def new_figure(width: float, height: float) -> Figure:
    """An empty figure that writes the same bytes each time."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def write(name: str, kind: str, make: Callable[[], Figure]) -> None:
    """Both versions of a picture, in docs/images or in the folder that the command line names."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    for mode, ink in INKS.items():
        inks = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink)
        look = {"font.size": 9, "svg.hashsalt": name, "savefig.transparent": True, "axes.spines.top": False}
        with matplotlib.rc_context({**inks, **look, "axes.spines.right": False, "legend.frameon": False}):
            metadata = {"Date": None} if kind == "svg" else {"Software": None}
            make().savefig(folder / f"{name}-{mode}.{kind}", dpi=160, metadata=metadata)
