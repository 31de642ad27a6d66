"""What a run may change when it is resumed: nothing but its length, which may grow, and the place of its data."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from softdraw.errors import InputError
from softdraw.recipes.runs.ranks import Ranks
from softdraw.recipes.runs.recipe import Recipe, Trainer

DATA = "data_sha256"
EXTENDED = "extended"


def prepare(recipe: Recipe, given: dict[str, Any], saved: dict[str, Any] | None, out: Path, ranks: Ranks) -> Trainer:
    """The trainer of the settings that were given; where a run is resumed, the others are those that it has.

    Raises:
        InputError: a setting is bad, or is not that of the run.
    """
    base = recipe.settings() if saved is None else _settings(recipe, saved, out)
    settings, device = on_device(replace(base, **given))
    trainer = recipe.trainer(settings, device, ranks)
    if saved is not None:
        now, of = config(trainer), f"the run in {out}"
        if now["epochs"] < saved["epochs"]:
            raise InputError(
                f"{of} has epochs {saved['epochs']}, not {now['epochs']}: `epochs` may grow, which extends the run, "
                "but not shrink"
            )
        check_unchanged(now | {"epochs": saved["epochs"]}, saved, of)
    return trainer


def config(trainer: Trainer) -> dict[str, Any]:
    """What defines the run of ``trainer``: its settings and the fingerprint of its data."""
    return asdict(trainer.settings) | {DATA: trainer.fingerprint}


def extended(trainer: Trainer, saved: dict[str, Any] | None) -> dict[str, Any] | None:
    """The ``config.json`` of a run that becomes longer than ``saved`` says; None where it does not.

    A run that was extended is another one than a run that had this length from the start, wherever something follows
    a schedule over the whole of it. So the file lists the extensions: after which epoch, and from how many.
    """
    if saved is None or saved["epochs"] == trainer.settings.epochs:
        return None
    done = len(trainer.history)
    earlier = [*saved.get(EXTENDED, []), *([{"after": done, "from": saved["epochs"]}] if done else [])]
    return config(trainer) | ({EXTENDED: earlier} if earlier else {})


def check_unchanged(now: dict[str, Any], saved: dict[str, Any], of: str) -> None:
    """Refuse to go on with other settings or data than at the start; the data may have moved."""
    for name, value in now.items():
        if name == DATA and value != saved[name]:
            where = f" in {now['data']}" if "data" in now else ""
            raise InputError(f"the data{where} are not those of {of}: give another `out`")
        if name != "data" and value != saved[name]:
            raise InputError(f"{of} has {name} {saved[name]}, not {value}: give the same settings, or another `out`")


def restore(trainer: Trainer, state: dict[str, Any], out: Path) -> None:
    """Load a checkpoint that was read, or say that it belongs to something else."""
    try:
        trainer.load(state)
    except Exception:  # an edited state can fail in as many ways as it has parts
        raise InputError(f"{out / 'checkpoint.pt'} is not of this run: give another `out` to start again") from None


def on_device(settings: Any) -> tuple[Any, torch.device]:
    """The settings with the type of their device, and the device: a run may move from one GPU to another."""
    device = resolve_device(settings.device)
    return replace(settings, device=device.type), device


def resolve_device(name: str) -> torch.device:
    """``auto`` is a CUDA GPU where there is one, else the CPU; any other name must be a device that is here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).sum().item()
    except Exception:  # each backend has an error type of its own for "not here"
        here = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise InputError(
            f"`device` {name!r} is not a device of this machine: use auto, or one of {', '.join(here)}"
        ) from None
    return device


def _settings(recipe: Recipe, saved: dict[str, Any], out: Path) -> Any:
    usual = asdict(recipe.settings()) | {DATA: ""}
    kept = {name: value for name, value in saved.items() if name != EXTENDED}
    if {name: type(value) for name, value in kept.items()} != {name: type(value) for name, value in usual.items()}:
        raise InputError(f"{out / 'config.json'} is not that of a run of this version: give another `out`")
    return recipe.settings(**{name: value for name, value in kept.items() if name != DATA})
