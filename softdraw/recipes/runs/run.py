"""One run from its folder to its pictures: fresh, or continued from the last checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softdraw.recipes.runs import figures
from softdraw.recipes.runs.folder import Folder
from softdraw.recipes.runs.ranks import Ranks
from softdraw.recipes.runs.recipe import Recipe, Trainer
from softdraw.recipes.runs.resume import config, extended, prepare, restore


@dataclass(frozen=True)
class Start:
    """Where a run begins: after how many epochs, and of how many it was before it was extended, if it was."""

    done: int
    extended_from: int | None


def run(
    recipe: Recipe,
    given: dict[str, Any],
    out: Path,
    resume: bool,
    ranks: Ranks,
    on_start: Callable[[Any, Start], None],
    on_epoch: Callable[[Any], None],
) -> Any:
    """Train to the end, with a checkpoint after every epoch; returns the trainer with its history.

    Args:
        recipe: what is trained.
        given: the settings that the user chose; the others are the defaults, or when resuming those of the run.
        out: the folder of the run.
        resume: continue the run in ``out``; where there is none yet, start it. More epochs than it had extend it.
        ranks: this process's place; the first rank alone reads and writes the folder.
        on_start: called once before the first epoch, on_epoch after every one, its checkpoint being written.

    Raises:
        InputError: on every rank, when one of them meets a bad input.
    """
    if recipe.pictures:
        figures.require()
    folder = Folder(out, recipe.pictures)
    try:
        saved = ranks.on_first(folder.open, resume)
        trainer = ranks.on_all(prepare, recipe, given, saved, out, ranks)
        state = ranks.on_first(_created_or_loaded, folder, trainer, saved)
        if state is not None:
            ranks.on_all(restore, trainer, state, out)
        longer = extended(trainer, saved)
        if longer is not None:
            ranks.on_first(_extend, folder, longer)
        done = len(trainer.history)
        on_start(trainer, Start(done, saved["epochs"] if saved and longer and done else None))
        while len(trainer.history) < trainer.settings.epochs:
            trainer.epoch()
            ranks.on_first(folder.save, trainer.state())
            on_epoch(trainer)
        ranks.on_first(folder.write_pictures, recipe.draw, trainer)
        return trainer
    finally:
        folder.release()


def _created_or_loaded(folder: Folder, trainer: Trainer, saved: dict[str, Any] | None) -> dict[str, Any] | None:
    """The state to continue from; None for a run that starts, whose folder is then made."""
    if saved is not None:
        return folder.load()
    folder.create(config(trainer))
    return None


def _extend(folder: Folder, longer: dict[str, Any]) -> None:
    folder.forget_pictures()  # first: after a kill in between, the run at its old length draws them again
    folder.configure(longer)
