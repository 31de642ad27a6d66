"""What a comparison found: means over the seeds with their standard errors, as JSON and as a picture."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from softdraw.recipes.runs import figures
from softdraw.recipes.runs.recipe import Metric, Recipe

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")  # Okabe and Ito's
_STYLES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Compared:
    """The runs of one variant: a history and the seconds of each seed."""

    name: str
    settings: Any
    histories: list[list[dict[str, float]]]
    seconds: list[float]

    def last(self, key: str) -> list[float]:
        """A metric after the last epoch, for each seed."""
        return [history[-1][key] for history in self.histories]

    def behind(self, best: Compared, key: str) -> list[float]:
        """How much higher a metric is than that of ``best``, seed by seed."""
        return [a - b for a, b in zip(self.last(key), best.last(key), strict=True)]


def estimate(values: Sequence[float]) -> tuple[float, float | None]:
    r"""The mean and its standard error :math:`s / \sqrt{n}`, which one value does not have."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return statistics.fmean(values), error


def as_json(compared: Sequence[Compared], recipe: Recipe) -> list[dict[str, Any]]:
    """The figures of the variants, the best first. They include no times, so a comparison that was stopped and
    continued gives the same file."""
    first, *others = recipe.metrics
    return [
        {
            recipe.varies: each.name,
            **recipe.notes(each.settings),
            first.name: _figures(each.last(first.key)),
            f"{first.name}_behind_the_first": _figures(each.behind(compared[0], first.key)),
            **{metric.name: _figures(each.last(metric.key)) for metric in others},
        }
        for each in compared
    ]


def _figures(values: list[float]) -> dict[str, Any]:
    mean, error = estimate(values)
    return {"mean": mean, "standard_error": error, "seeds": values}


def picture(compared: Sequence[Compared], recipe: Recipe) -> bytes:
    """PNG: on the left the course of each variant, on the right where each ends; the best first."""
    metric = recipe.metrics[0]
    styles = [
        {"color": _COLOURS[i % len(_COLOURS)], "linestyle": _STYLES[i // len(_COLOURS) % len(_STYLES)]}
        for i in range(len(compared))
    ]
    figure, (course, end) = figures.subplots(12, max(4.5, 1.5 + 0.35 * len(compared)), ncols=2, width_ratios=(3, 2))
    for row, (each, style) in enumerate(zip(compared, styles, strict=True)):
        _course(course, each, metric, style)
        _end(end, row, each.last(metric.key), style["color"])
    seeds = len(compared[0].histories)
    course.set(xlabel="epoch", ylabel=metric.label, title="By epoch")
    histories = [history for each in compared for history in each.histories]
    course.set_ylim(*figures.settled([[record[metric.key] for record in history] for history in histories]))
    course.legend(frameon=False)
    end.set_yticks(range(len(compared)), [each.name for each in compared])
    end.set_ylim(len(compared) - 0.5, -0.5)
    error = f"mean ± standard error of {seeds} seeds (rings)" if seeds > 1 else "one seed"
    end.set(xlabel=metric.label, title=f"After the last epoch\n{error}")
    for axes in (course, end):
        axes.grid(alpha=0.25)
        axes.title.set_fontsize(11)
    course.xaxis.get_major_locator().set_params(integer=True)
    return figures.png(figure)


def _course(axes: Any, each: Compared, metric: Metric, style: dict[str, str]) -> None:
    """The mean over the seeds by epoch, in a band of one standard error."""
    epochs = [record["epoch"] for record in each.histories[0]]
    means, errors = zip(
        *(estimate([record[metric.key] for record in at]) for at in zip(*each.histories, strict=True)), strict=True
    )
    axes.plot(epochs, means, label=each.name, marker="." if len(epochs) == 1 else None, **style)
    low = [mean - (error or 0) for mean, error in zip(means, errors, strict=True)]
    high = [mean + (error or 0) for mean, error in zip(means, errors, strict=True)]
    axes.fill_between(epochs, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _end(axes: Any, row: int, values: list[float], colour: str) -> None:
    """The mean with its standard error, and the seeds behind it."""
    mean, error = estimate(values)
    axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.5, markerfacecolor="none", markersize=5)
    axes.errorbar(mean, row, xerr=error, fmt="D", color=colour, markersize=5, capsize=4)
