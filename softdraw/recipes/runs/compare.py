"""Variants of a recipe side by side: each trains on the same data and seeds, in a run of its own that can be stopped.

The runs of one seed have the same split, the same first weights, the same order of the data and the same noise: what
differs between them is the setting that varies.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from softdraw.errors import InputError
from softdraw.recipes.runs import comparison, figures
from softdraw.recipes.runs.comparison import Compared, estimate
from softdraw.recipes.runs.folder import Folder
from softdraw.recipes.runs.ranks import Ranks
from softdraw.recipes.runs.recipe import Recipe
from softdraw.recipes.runs.resume import DATA, check_unchanged, on_device
from softdraw.recipes.runs.run import Start, run

On = Callable[["Run", Any], None]


@dataclass(frozen=True)
class Run:
    """One training of a comparison: what it is called, the settings that it adds, its place among all."""

    name: str
    given: dict[str, Any]
    index: int

    def __str__(self) -> str:
        return f"{self.name}, seed {self.given['seed']}"

    def folder(self, out: Path) -> Path:
        """Where it is under ``out``, in a name that every file system takes."""
        return out / self.name.replace(":", "_") / f"seed-{self.given['seed']}"


def plan(variants: Mapping[str, dict[str, Any]], seeds: int) -> list[Run]:
    """Every variant with every seed; seed by seed, so that what is stopped early has compared all on some seeds.

    Args:
        variants: the settings that each adds, by its name.
        seeds: how many; they are 0, 1, ...

    Raises:
        InputError: there is no variant or no seed.
    """
    if not variants:
        raise InputError("a comparison needs at least one variant, got none")
    if type(seeds) is not int or not 1 <= seeds < 2**31:
        raise InputError(f"`seeds` must be at least 1 and below 2**31, an int, got {seeds!r}")
    pairs = [(name, given | {"seed": seed}) for seed in range(seeds) for name, given in variants.items()]
    return [Run(name, given, index) for index, (name, given) in enumerate(pairs)]


def compare(
    recipe: Recipe, given: dict[str, Any], runs: Sequence[Run], out: Path, on_start: On, on_epoch: On
) -> list[Compared]:
    """Train every run to the end, or from where it was stopped, and write ``compare.json`` and ``compare.png``.

    Args:
        recipe: what is trained.
        given: the settings that the user chose for all; those of a run come before them.
        runs: those of :func:`plan`. Variants and seeds may be added to a comparison that is there.
        out: the folder of the comparison.
        on_start: called before the first epoch of each run, on_epoch after every one.

    Returns:
        The variants, the one of the lowest mean of the recipe's first metric first.

    Raises:
        InputError: other settings or data than those that the comparison was started with, or any bad input of a run.
    """
    figures.require()
    config = _config(recipe, given)
    folder = Folder(out, nested=True)
    try:
        saved = folder.open(resume=True)
        if saved is None:
            folder.create(config)
        elif saved.keys() != config.keys():
            raise InputError(f"{out / 'config.json'} is not that of a comparison of this version: give another `out`")
        else:
            check_unchanged(config, saved, f"the comparison in {out}")
        found = _found(recipe, given, runs, out, on_start, on_epoch)
        report = {"settings": config, f"{recipe.varies}s": comparison.as_json(found, recipe)}
        folder.write("compare.json", (json.dumps(report, indent=2) + "\n").encode())
        folder.write("compare.png", comparison.picture(found, recipe))
        return found
    finally:
        folder.release()


def _config(recipe: Recipe, given: dict[str, Any]) -> dict[str, Any]:
    """What all runs share: the settings but the one that varies and the seed, and the fingerprint of the data."""
    settings, device = on_device(recipe.settings(**given))
    fingerprint = recipe.trainer(settings, device, Ranks()).fingerprint
    shared = {name: value for name, value in asdict(settings).items() if name not in (recipe.varies, "seed")}
    return {"comparison": True} | shared | {DATA: fingerprint}


def _found(
    recipe: Recipe, given: dict[str, Any], runs: Sequence[Run], out: Path, on_start: On, on_epoch: On
) -> list[Compared]:
    found: dict[str, Compared] = {}
    for each in runs:
        trainer = _train(recipe, given, each, out, on_start, on_epoch)
        of = found.setdefault(each.name, Compared(each.name, trainer.settings, [], []))
        of.histories.append(trainer.history)
        of.seconds.append(trainer.seconds["total"])
    return sorted(found.values(), key=lambda of: estimate(of.last(recipe.metrics[0].key))[0])


def _train(recipe: Recipe, given: dict[str, Any], each: Run, out: Path, on_start: On, on_epoch: On) -> Any:
    def started(trainer: Any, start: Start) -> None:
        on_start(each, trainer)

    def advanced(trainer: Any) -> None:
        on_epoch(each, trainer)

    try:
        return run(recipe, given | each.given, each.folder(out), True, Ranks(), started, advanced)
    except InputError as error:
        raise InputError(f"{each}: {error}") from None
