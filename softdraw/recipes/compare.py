"""Rules side by side: each trains on the same images and seeds, in a run of its own that can be stopped and continued.

The runs of one seed have the same split, the same first weights, the same order of images and the same noise: what
differs between them is the rule.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from softdraw.errors import InputError
from softdraw.recipes import compared, data, pictures
from softdraw.recipes.compared import Compared, estimate
from softdraw.recipes.folder import Folder
from softdraw.recipes.loop import Trainer
from softdraw.recipes.ranks import Ranks
from softdraw.recipes.run import PIXELS, check_unchanged, run
from softdraw.recipes.settings import Settings, parse_rule, resolve_device

On = Callable[["Run", Trainer], None]


@dataclass(frozen=True)
class Run:
    """One training of a comparison: what it is called, the settings that it adds, its place among all."""

    rule: str
    given: dict[str, Any]
    index: int

    def __str__(self) -> str:
        return f"{self.rule}, seed {self.given['seed']}"

    def folder(self, out: Path) -> Path:
        """Where it is under ``out``, in a name that every file system takes."""
        return out / self.rule.replace(":", "_") / f"seed-{self.given['seed']}"


def plan(rules: Sequence[str], seeds: int) -> list[Run]:
    """Every rule with every seed; seed by seed, so that what is stopped early has compared all rules on some seeds.

    Raises:
        InputError: a rule is unknown or named twice, or there is no seed.
    """
    if not 1 <= seeds < 2**31:
        raise InputError(f"--seeds must be at least 1 and below 2**31, got {seeds}")
    settings = {}
    for text in rules:
        words = parse_rule(text)
        name = words["rule"] + (f":tau={words['tau_start']:.12g}" if "tau_start" in words else "")
        if name in settings:
            raise InputError(f"--rules names {name} twice: leave one out")
        settings[name] = words
    pairs = [(name, words | {"seed": seed}) for seed in range(seeds) for name, words in settings.items()]
    return [Run(name, given, index) for index, (name, given) in enumerate(pairs)]


def compare(given: dict[str, Any], runs: Sequence[Run], out: Path, on_start: On, on_epoch: On) -> list[Compared]:
    """Train every run to the end, or from where it was stopped, and write ``compare.json`` and ``compare.png``.

    Args:
        given: the settings that the user chose for all; a rule's own tau comes before theirs.
        runs: those of :func:`plan`. Rules and seeds may be added to a comparison that is there.
        out: the folder of the comparison.
        on_start: called before the first epoch of each run, on_epoch after every one.

    Returns:
        The rules, the one of lowest mean held-out nELBO first.

    Raises:
        InputError: other settings or images than those that the comparison was started with, or any bad input of a run.
    """
    pictures.require()
    config = _config(given)
    folder = Folder(out, resume=True, nested=True)
    try:
        saved = folder.config()
        if saved is None:
            folder.create(config)
        elif saved.keys() != config.keys():
            raise InputError(f"{out / 'config.json'} is not that of a comparison of this version: give another --out")
        else:
            check_unchanged(config, saved, f"the comparison in {out}")
        found = _found(given, runs, out, on_start, on_epoch)
        report = {"settings": config, "rules": compared.as_json(found)}
        folder.write("compare.json", (json.dumps(report, indent=2) + "\n").encode())
        folder.write("compare.png", compared.picture(found))
        return found
    finally:
        folder.release()


def _config(given: dict[str, Any]) -> dict[str, Any]:
    """What all runs share: the settings but rule and seed, and the fingerprint of the pixels."""
    settings = Settings(**given)
    settings = replace(settings, device=resolve_device(settings.device).type)
    images = data.load(settings.data, settings.validation, torch.Generator())
    shared = {name: value for name, value in asdict(settings).items() if name not in ("rule", "seed")}
    return {"comparison": True} | shared | {PIXELS: images.fingerprint}


def _found(given: dict[str, Any], runs: Sequence[Run], out: Path, on_start: On, on_epoch: On) -> list[Compared]:
    rules: dict[str, Compared] = {}
    for each in runs:
        trainer = _train(given, each, out, on_start, on_epoch)
        of = rules.setdefault(each.rule, Compared(each.rule, trainer.settings, [], []))
        of.histories.append(trainer.history)
        of.seconds.append(trainer.seconds["total"])
    return sorted(rules.values(), key=lambda of: estimate(of.nelbo)[0])


def _train(given: dict[str, Any], each: Run, out: Path, on_start: On, on_epoch: On) -> Trainer:
    def started(trainer: Trainer) -> None:
        on_start(each, trainer)

    def advanced(trainer: Trainer) -> None:
        on_epoch(each, trainer)

    try:
        return run(given | each.given, each.folder(out), True, Ranks(), started, advanced)
    except InputError as error:
        raise InputError(f"{each}: {error}") from None
