"""The bias-variance picture; imports matplotlib."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

if TYPE_CHECKING:
    from matplotlib.axis import Axis

    from softdraw.diagnosis.report import Report

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")


def picture(report: Report, path: str) -> None:
    """Points with error bars on log axes; an arrow to the left is a bias within noise, at the noise's level."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log", xlabel="relative bias", ylabel="relative variance of one draw")
    for i, r in enumerate(report.rules):
        colour, y = _COLOURS[i % len(_COLOURS)], max(r.variance.value, 1e-6)
        across = [[max(y - r.variance.low, 0)], [max(r.variance.high - y, 0)]]
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
    axes.set_title("hollow: bias within noise, at most this", loc="right", fontsize=9, color="0.4")
    axes.set_title("Gradient rules on this objective", loc="left", fontsize=11)
    axes.legend(title="rule, evaluations of f", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    for axis, get, put in ((axes.xaxis, axes.get_xlim, axes.set_xlim), (axes.yaxis, axes.get_ylim, axes.set_ylim)):
        _scale(axis, get(), put)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def _scale(axis: Axis, limits: tuple[float, float], put: Callable) -> None:
    """Room around the points, a decade and a half at least; plain numbers at 1, 2, 5 where a decade is wide."""
    low, high = (math.log10(x) for x in limits)
    centre, half = (low + high) / 2, max((high - low) / 2 + 0.15, 0.75)
    put(10 ** (centre - half), 10 ** (centre + half))
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if half < 1.25 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_formatter(NullFormatter())
