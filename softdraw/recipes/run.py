"""One run from its folder to its pictures: fresh, or continued from the last checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from softdraw.errors import InputError
from softdraw.recipes import pictures
from softdraw.recipes.folder import PICTURES, Folder
from softdraw.recipes.loop import Trainer
from softdraw.recipes.ranks import Ranks
from softdraw.recipes.settings import Settings, resolve_device

PIXELS = "pixels_sha256"


def run(
    given: dict[str, Any],
    out: Path,
    resume: bool,
    ranks: Ranks,
    on_start: Callable[[Trainer], None],
    on_epoch: Callable[[Trainer], None],
) -> Trainer:
    """Train to the end, with a checkpoint after every epoch; returns the trainer with its history.

    Args:
        given: the settings that the user chose; the others are the defaults, or when resuming those of the run.
        out: the folder of the run.
        resume: continue the run in ``out``; where there is none yet, start it.
        ranks: this process's place; the first rank alone writes.
        on_start: called once before the first epoch, on_epoch after every one, its checkpoint being written.

    Raises:
        InputError: on every rank, when one of them meets a bad input.
    """
    pictures.require()
    folder = ranks.agreed(lambda: Folder(out, resume) if ranks.first else None)
    try:
        return _run(given, out, folder, ranks, on_start, on_epoch)
    finally:
        if folder:
            folder.release()


def _run(
    given: dict[str, Any],
    out: Path,
    folder: Folder | None,
    ranks: Ranks,
    on_start: Callable[[Trainer], None],
    on_epoch: Callable[[Trainer], None],
) -> Trainer:
    saved = ranks.broadcast(ranks.agreed(lambda: folder.config() if folder else None))
    trainer = ranks.agreed(lambda: _trainer(given, saved, out, ranks))
    state = ranks.broadcast(ranks.agreed(lambda: _prepared(folder, trainer, saved) if folder else None))
    ranks.agreed(lambda: _restore(trainer, state, out) if state else None)
    on_start(trainer)
    while len(trainer.history) < trainer.settings.epochs:
        trainer.epoch()
        ranks.agreed(lambda: folder.save(trainer.state()) if folder else None)
        on_epoch(trainer)
    ranks.agreed(lambda: _picture(folder, trainer) if folder else None)
    return trainer


def _restore(trainer: Trainer, state: dict[str, Any], out: Path) -> None:
    try:
        trainer.load(state)
    except Exception:  # an edited state shows itself in as many ways as it has parts
        raise InputError(f"{out / 'checkpoint.pt'} is not of this run: give another --out to start again") from None


def _picture(folder: Folder, trainer: Trainer) -> None:
    if not folder.holds(PICTURES):  # of a finished run that is resumed they are there
        for name, picture in pictures.draw_all(trainer).items():
            folder.write(name, picture)


def _trainer(given: dict[str, Any], saved: dict[str, Any] | None, out: Path, ranks: Ranks) -> Trainer:
    """The trainer of the settings; those of a resumed run must be the ones that it was started with."""
    base = Settings() if saved is None else _settings(saved, out)
    settings = replace(base, **given)
    device = resolve_device(settings.device)
    settings = replace(settings, device=device.type)
    trainer = Trainer(settings, device, ranks)
    if saved is not None:
        check_unchanged(_config(trainer), saved, f"the run in {out}")
    return trainer


def check_unchanged(config: dict[str, Any], saved: dict[str, Any], what: str) -> None:
    """Refuse to go on with other settings or pixels than at the start; the data may have moved."""
    for name, value in config.items():
        if name == PIXELS and value != saved[name]:
            raise InputError(f"the pixels of {config['data']} are not those of {what}: give another --out")
        if name != "data" and value != saved[name]:
            raise InputError(f"{what} has {name} {saved[name]}, not {value}: give the same options, or another --out")


def _settings(saved: dict[str, Any], out: Path) -> Settings:
    usual = asdict(Settings()) | {PIXELS: ""}
    if {name: type(value) for name, value in saved.items()} != {name: type(value) for name, value in usual.items()}:
        raise InputError(f"{out / 'config.json'} is not that of a run of this version: give another --out")
    return Settings(**{name: value for name, value in saved.items() if name != PIXELS})


def _prepared(folder: Folder, trainer: Trainer, saved: dict[str, Any] | None) -> dict[str, Any] | None:
    """The state to continue from, or None and a folder with its configuration for a run that starts."""
    if saved is not None:
        return folder.load()
    folder.create(_config(trainer))
    return None


def _config(trainer: Trainer) -> dict[str, Any]:
    return asdict(trainer.settings) | {PIXELS: trainer.images.fingerprint}
