"""What the command of any recipe does: load, connect the ranks, run behind a bar, show the end, fail in one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from softdraw.cli import flags
from softdraw.cli.options import use_one_thread
from softdraw.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from softdraw.recipes.runs.ranks import Ranks
    from softdraw.recipes.runs.recipe import Recipe, Report


def _nothing(trainer: Any, console: Console) -> None:
    pass


@dataclass(frozen=True)
class Chosen:
    """What a command line stands for: the recipe with its words, the settings that were given, and the run's folder.

    ``show`` is called last, on the first rank alone, with the trainer and the console, if the result is of use.
    """

    recipe: Recipe
    report: Report
    given: dict[str, Any]
    out: Path
    resume: bool
    show: Callable[[Any, Console], None] = _nothing


def train(command: str, what: str, choose: Callable[[], Chosen]) -> None:
    """Train what ``choose`` returns.

    Args:
        command: what the user typed, without options, as "softdraw train".
        what: what has to be loaded first, as "torch and the images".
        choose: it may import torch, and refuse with an InputError.
    """
    from softdraw.cli import screens

    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    console = screens.console(quiet=not alone and os.environ.get("RANK", "0") != "0")
    with screens.loading(console, what) as loaded:
        from softdraw.recipes.runs.ranks import started

        use_one_thread()
        with started() as ranks:
            try:
                failure, code = _run(choose(), command, ranks, console, loaded), 1
            except InputError as error:
                failure, code = str(error), 2
            if failure is not None:
                if ranks.first:
                    loaded()
                    print(flags.line(failure), file=sys.stderr, flush=True)
                ranks.barrier()  # the launcher ends all ranks when one is gone: not before the line is printed
                raise typer.Exit(code)


def _run(chosen: Chosen, command: str, ranks: Ranks, console: Console, loaded: Callable[[], None]) -> str | None:
    """Run, show, and return why the result is of no use, if it is of none."""
    from softdraw.cli.screens import TrainScreen
    from softdraw.recipes.runs.run import run

    screen = TrainScreen(chosen.report, command, chosen.out, console, loaded)
    with screen:
        trainer = run(chosen.recipe, chosen.given, chosen.out, chosen.resume, ranks, screen.start, screen.advance)
    screen.end(trainer)
    failure = chosen.report.failure(trainer)
    if failure is None and ranks.first:
        chosen.show(trainer, console)
    return failure
