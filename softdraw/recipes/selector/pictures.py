"""What a run leaves to look at: the chosen features, as a picture and as names, and the course of the training."""

from __future__ import annotations

import json
from typing import Any

from softdraw.recipes.runs.figures import png, subplots
from softdraw.recipes.selector.loop import CONCRETE, Trainer

PICTURES = ("chosen.png", "curves.png", "chosen.json")
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#f0e442")  # Okabe and Ito's


def draw_all(trainer: Trainer) -> dict[str, bytes]:
    """Every file by its name."""
    chosen = _pixels(trainer) if trainer.features.shape else _named(trainer)
    contents = (png(chosen), png(_curves(trainer)), _names(trainer))
    return dict(zip(PICTURES, contents, strict=True))


def _share(trainer: Trainer, name: str, k: int) -> Any:
    """The share of the seeds with which each feature was chosen, ``(n,)``."""
    return trainer.chosen[f"{name} k={k}"].double().mean(0).numpy()


def _pixels(trainer: Trainer) -> Any:
    """A row for each k, a column for each selector."""
    names, sizes, shape = trainer.names, trainer.sizes, trainer.features.shape
    assert shape is not None
    figure, axes = subplots(
        1.45 * len(names), 1.6 * len(sizes) + 0.9, nrows=len(sizes), ncols=len(names), squeeze=False
    )
    for row, k in zip(axes, sizes, strict=True):
        for place, name in zip(row, names, strict=True):
            place.imshow(_share(trainer, name, k).reshape(shape), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            place.set(xticks=[], yticks=[])
            accuracy = 100 * float(trainer.accuracy[f"{name} k={k}"].mean())
            place.set_xlabel(f"{accuracy:.1f} %", fontsize=9)
            if k == sizes[0]:
                place.set_title(_wrapped(name), fontsize=9)
        row[0].set_ylabel(f"k = {k}", fontsize=11)
    figure.suptitle("How often each pixel was chosen (white: with every seed), and the held-out accuracy", fontsize=11)
    return figure


def _named(trainer: Trainer) -> Any:
    """A column for each k and selector, a row for each feature."""
    names, sizes, features = trainer.names, trainer.sizes, trainer.features.names
    figure, axes = subplots(
        2.5 + 0.33 * len(names) * len(sizes), 2.2 + 0.19 * len(features), ncols=len(sizes), sharey=True, squeeze=False
    )
    for place, k in zip(axes[0], sizes, strict=True):
        shares = [list(row) for row in zip(*(_share(trainer, name, k) for name in names), strict=True)]
        place.imshow(shares, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
        place.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        place.set_title(f"k = {k}", fontsize=10)
    axes[0][0].set_yticks(range(len(features)), features, fontsize=8)
    figure.suptitle("How often each feature was chosen (white: with every seed)", fontsize=11)
    return figure


def _curves(trainer: Trainer) -> Any:
    """The error of the networks that the selectors are trained with, on what these would choose by now."""
    history, sizes = trainer.history, trainer.sizes
    figure, axes = subplots(4 * len(sizes) + 1, 4, ncols=len(sizes), squeeze=False)
    learned = [name for name in trainer.names if f"{name} k={sizes[0]} error" in history[-1]]
    for place, k in zip(axes[0], sizes, strict=True):
        for i, name in enumerate(learned):
            style = (
                {"color": "black", "linestyle": "--"} if name == CONCRETE else {"color": _COLOURS[i % len(_COLOURS)]}
            )
            errors = [100 * record[f"{name} k={k} error"] for record in history]
            place.plot([record["epoch"] for record in history], errors, label=name, **style)
        place.set(title=f"k = {k}", xlabel="epoch")
        place.grid(alpha=0.25)
        place.xaxis.get_major_locator().set_params(integer=True)
    axes[0][0].set_ylabel("held-out error of the network\nthat is trained with the selector (%)")
    axes[0][-1].legend(frameon=False, fontsize=8)
    return figure


def _names(trainer: Trainer) -> bytes:
    """JSON: for each selector and k, and each seed, the names of the features and the held-out accuracy."""
    names = trainer.features.names
    found = [
        {
            "selector": name,
            "k": k,
            "features": [
                [names[i] for i in row.nonzero().flatten().tolist()] for row in trainer.chosen[f"{name} k={k}"]
            ],
            "accuracy": trainer.accuracy[f"{name} k={k}"].tolist(),
        }
        for name in trainer.names
        for k in trainer.sizes
    ]
    return (json.dumps(found, indent=2, ensure_ascii=False) + "\n").encode()


def _wrapped(name: str) -> str:
    """A long name in two lines."""
    for before in (":", " "):
        if before in name:
            return name.replace(before, f"{before}\n", 1)
    middle = next((i for i in range(6, len(name)) if name[i].isupper()), 0)
    return f"{name[:middle]}\n{name[middle:]}" if middle else name
