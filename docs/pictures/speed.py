"""Times faster than F.gumbel_softmax, from the file of a benchmark run: python docs/pictures/speed.py

The file is benchmarks/results/float32.json. To measure anew, on a quiet machine (some minutes):

    softdraw bench --dtypes float32 --threads 1,all --rounds 21 --out runs/bench
    cp runs/bench/bench.json benchmarks/results/float32.json
    python docs/pictures/speed.py
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from style import BLUE, ORANGE, new_figure, write

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "float32.json"
OPERATIONS = {
    "soft": "soft",
    "hard": "hard",
    "soft+backward": "soft, with\nbackward",
    "hard+backward": "hard, with\nbackward",
}
SIZES = ((256, 32), (8192, 128), (1024, 8192))


def ratios(threads: int) -> dict[tuple[int, int], dict[str, dict[str, float]]]:
    """By size and operation, the time of each peer over softdraw's."""
    results = json.loads(RESULTS.read_text())["results"]
    kept = [r for r in results if r["threads"] == threads and r["operation"] in OPERATIONS]
    return {size: {r["operation"]: r["ratios"] for r in kept if (r["rows"], r["cols"]) == size} for size in SIZES}


def make() -> Figure:
    figure = new_figure(9, 2.9)
    ink = matplotlib.rcParams["text.color"]
    found = ratios(threads=2)
    for axes, (size, by_operation) in zip(figure.subplots(1, len(SIZES), sharey=True), found.items(), strict=True):
        for place, operation in enumerate(OPERATIONS):
            for shift, (peer, colour) in zip((-0.2, 0.2), {"eager": BLUE, "compiled": ORANGE}.items(), strict=True):
                times = by_operation[operation][peer]
                axes.bar(place + shift, times, 0.38, color=colour, label=f"than {peer}" if place == 0 else None)
                axes.text(place + shift, times + 0.4, f"{times:.{1 if times < 10 else 0}f}", ha="center", fontsize=8)
        axes.axhline(1, color=ink, linewidth=0.8, linestyle=":")
        axes.set_xticks(range(len(OPERATIONS)), OPERATIONS.values(), fontsize=8)
        axes.set_title(f"{size[0]} x {size[1]}", fontsize=10)
    figure.axes[0].set_ylabel("times faster")
    figure.axes[0].legend(loc="upper left")
    return figure


if __name__ == "__main__":
    write("speed", "svg", make)
