"""The bias-variance picture; imports matplotlib."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

if TYPE_CHECKING:
    from matplotlib.axis import Axis

    from softdraw.diagnosis.report import Report

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")


def check_path(path: str) -> None:
    """A picture can be written to ``path``, or an OSError or ValueError says why not; done before hours of work."""
    folder, kind = os.path.dirname(path) or ".", os.path.splitext(path)[1][1:].lower()
    kinds = FigureCanvasAgg.get_supported_filetypes()
    if kind not in kinds:
        raise ValueError(f"its name must end in one of .{', .'.join(sorted(kinds))}")
    if not os.path.isdir(folder):
        raise OSError(f"there is no folder {folder}")
    if os.path.isdir(path) or not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise OSError("it cannot be written: choose another place")


class Picture(Figure):
    """A figure that a notebook shows by itself, whether pyplot was imported or not."""

    def _repr_png_(self) -> bytes:
        written = io.BytesIO()
        self.savefig(written, format="png", dpi=100)
        return written.getvalue()


def picture(report: Report) -> Figure:
    """Points with error bars on log axes, variances at equal cost.

    An arrow to the left is a bias within noise, at the noise's level.
    """
    figure = Picture(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set(xlabel="relative bias", ylabel="relative variance x evaluations of f")
    for i, r in enumerate(report.rules):
        colour = _COLOURS[i % len(_COLOURS)]
        middle, low, high = (n * r.evaluations for n in r.variance)  # at equal cost: what one evaluation leaves
        y = max(middle, 1e-6)
        across = [[max(y - low, 0)], [max(high - y, 0)]]
        x = max(r.bias.high if r.unbiased else r.bias.value, 1e-6)
        along = [[x * 0.35], [0]] if r.unbiased else [[x - r.bias.low], [r.bias.high - x]]
        axes.errorbar(
            x,
            y,
            xerr=along,
            yerr=across,
            xuplims=r.unbiased,
            marker="o",
            color=colour,
            capsize=0 if r.unbiased else 3,
            markerfacecolor="white" if r.unbiased else colour,
            label=f"{r.name}, {r.evaluations}",
            linestyle="none",
        )
    axes.set(xscale="log", yscale="log")  # after the points: without any, matplotlib has no decade to show
    axes.set_title("hollow: bias within noise, at most this", loc="right", fontsize=9, color="0.4")
    axes.set_title("Gradient rules on this objective", loc="left", fontsize=11)
    axes.legend(title="rule, evaluations of f", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    for axis, get, put in ((axes.xaxis, axes.get_xlim, axes.set_xlim), (axes.yaxis, axes.get_ylim, axes.set_ylim)):
        _scale(axis, get(), put)
    axes.grid(alpha=0.3)
    return figure


def _scale(axis: Axis, limits: tuple[float, float], put: Callable) -> None:
    """Room around the points, a decade and a half at least; plain numbers at 1, 2, 5 where a decade is wide."""
    low, high = (math.log10(x) for x in limits)
    centre, half = (low + high) / 2, max((high - low) / 2 + 0.15, 0.75)
    put(10 ** (centre - half), 10 ** (centre + half))
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if half < 1.25 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_formatter(NullFormatter())
