"""A run of the selectors in words: what is trained, how it goes, what came of it."""

from __future__ import annotations

import math
import textwrap

from torch import Tensor

from softdraw.recipes.runs.run import Start
from softdraw.recipes.selector.loop import CONCRETE, FILTERS, Trainer

FILES: str = "chosen.json, pictures, metrics.jsonl and checkpoint.pt"


def headline(trainer: Trainer) -> str:
    """The data, the splits and the selectors."""
    s, splits = trainer.settings, trainer.splits
    return (
        f"{s.data}: {len(trainer.features.names)} features, {trainer.features.classes} classes; {s.seeds} splits of "
        f"{splits.x.shape[1]:,} rows to train on, {splits.valid_x.shape[1]:,} held out\n"
        f"{len(trainer.names)} selectors of {', '.join(map(str, trainer.sizes))} features, {s.device}"
    )


def extension(trainer: Trainer, start: Start) -> str:
    """Where tau was, and where it goes on from: it is a function of the length."""
    s = trainer.settings
    before = s.tau(trainer.steps * (start.extended_from or s.epochs) // s.epochs)(trainer.done)
    return (
        f"extended after epoch {start.done}: {s.epochs} epochs in place of {start.extended_from}; tau goes by the "
        f"length,\nso it goes on from {trainer.tau(trainer.done):.3g} (it was {before:.3g})"
    )


def summary(trainer: Trainer) -> str:
    """The last epoch in a few words."""
    last = trainer.history[-1]
    return f"tau {last['tau']:.3g}  held-out error of the k-subsets {100 * last['error']:.1f} %"


def table(trainer: Trainer) -> list[tuple[str, ...]]:
    """The held-out accuracy of a network that was trained anew on what each selector has chosen."""
    n = len(trainer.features.names)
    rows = [("accuracy, %", *(f"{k} of {n}" for k in trainer.sizes), "distinct", "seconds")]
    for name in trainer.names:
        keys = [f"{name} k={k}" for k in trainer.sizes]
        distinct = " ".join(_short(trainer.chosen[key].sum(-1).double().mean()) for key in keys)
        seconds = sum(trainer.seconds[key] for key in keys)
        accuracy = (_percent(trainer.accuracy[key]) for key in keys)
        rows.append((name, *accuracy, distinct, f"{seconds:.1f}"))
    return rows


def remarks(trainer: Trainer) -> list[str]:
    """What the rows and columns are, and the features of the first seed."""
    s = trainer.settings
    spread = f"mean ± standard error of {s.seeds} seeds" if s.seeds > 1 else "one seed"
    rules = [name for name in trainer.names if name not in (CONCRETE, *FILTERS)]
    text = (
        f"{', '.join(rules)}: k-subsets with that gradient. Held out, {spread}; a new network of {s.width} hidden "
        "units on the chosen features, the same for every row. distinct: features chosen, by size. seconds: processor "
        "time of the selection, all seeds and sizes."
    )
    return [textwrap.fill(text, width=80), "", *_picture(trainer), "", f"{trainer.seconds['total']:.1f} seconds in all"]


def failure(trainer: Trainer) -> str | None:
    """No result is of no use: a selector that learns nothing shows it in the table."""
    return None


def _short(value: Tensor) -> str:
    return f"{float(value):.1f}".removesuffix(".0")


def _percent(accuracy: Tensor) -> str:
    mean = f"{100 * float(accuracy.mean()):.1f}"
    if len(accuracy) == 1:
        return mean
    return f"{mean} ± {100 * float(accuracy.std()) / math.sqrt(len(accuracy)):.1f}"


def _picture(trainer: Trainer) -> list[str]:
    """What the first rule and the concrete selector have chosen with the first seed: pixels, or names of features."""
    k, first = trainer.sizes[len(trainer.sizes) // 2], trainer.names[0]
    chosen = {name: trainer.chosen[f"{name} k={k}"][0] for name in (first, CONCRETE)}
    if trainer.features.shape is None:
        lists = {
            name: ", ".join(trainer.features.names[i] for i in of.nonzero().flatten().tolist())
            for name, of in chosen.items()
        }
        return [textwrap.fill(f"{name}, k = {k}: {of}", width=80) for name, of in lists.items()]
    width = max(2 * trainer.features.shape[1], *(len(name) for name in chosen)) + 4
    pixels = [of.view(trainer.features.shape).tolist() for of in chosen.values()]
    heading = "".join(name.ljust(width) for name in chosen)
    rows = [
        "".join("".join("██" if on else "··" for on in row).ljust(width) for row in rows)
        for rows in zip(*pixels, strict=True)
    ]
    return [f"The {k} pixels of the first seed:", heading.rstrip(), *(row.rstrip() for row in rows)]
