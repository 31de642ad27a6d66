"""``softdraw train``: a discrete autoencoder on real images, from one command to its pictures."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softdraw.cli import flags
from softdraw.cli.options import Options, takes_options, use_one_thread
from softdraw.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from softdraw.recipes.runs.ranks import Ranks


@takes_options
def train(
    options: Options,
    rule: Annotated[
        str | None,
        typer.Option(
            help="The gradient rule, as zgr or reinmax:tau=1.1; without its tau it follows --tau.  [gumbel-softmax]"
        ),
    ] = None,
    hard: Annotated[
        bool | None,
        typer.Option("--hard/--soft", help="Short for --rule straight-through-gumbel, or gumbel-softmax.  [soft]"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Decides the split, the weights, the order and every draw.  [0]")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The run's folder; holds no run yet, unless --resume.  [runs/ and the name of the data]"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue the run in --out, or start it if there is none; more --epochs extend it."
        ),
    ] = False,
) -> None:
    """Train a categorical variational autoencoder on real images through discrete draws.

    Without options: scikit-learn's 1,797 scanned digits, no download. Writes config.json, metrics.jsonl, checkpoint.pt
    and four pictures to --out. A run that diverges ends with exit code 1. Several processes: torchrun
    --nproc-per-node 2 -m softdraw train ...
    """
    from softdraw.cli import screens

    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    console = screens.console(quiet=not alone and os.environ.get("RANK", "0") != "0")
    with screens.loading(console, "torch and the images") as loaded:
        from softdraw.recipes.runs.ranks import started

        use_one_thread()
        with started() as ranks:
            try:
                given = options.settings() | ({"seed": seed} if seed is not None else {}) | _rule(rule, hard, options)
                failure, code = _train(given, out, resume, ranks, console, loaded), 1
            except InputError as error:
                failure, code = str(error), 2
            if failure is not None:
                if ranks.first:
                    loaded()
                    print(flags.line(failure), file=sys.stderr, flush=True)
                ranks.barrier()  # the launcher ends all ranks when one is gone: not before the line is printed
                raise typer.Exit(code)


def _rule(rule: str | None, hard: bool | None, options: Options) -> dict[str, Any]:
    """The settings that --rule, --hard or --soft stand for."""
    from softdraw.recipes.autoencoder.settings import rule_settings

    if hard is not None:
        short = "straight-through-gumbel" if hard else "gumbel-softmax"
        if rule is not None:
            raise InputError(f"--{'hard' if hard else 'soft'} is short for --rule {short}, got --rule {rule} as well")
        rule = short
    if rule is None:
        return {}
    words = rule_settings(rule)
    options.check_tau_is_used([words])
    return words


def _train(
    given: dict[str, Any], out: Path | None, resume: bool, ranks: Ranks, console: Console, loaded: Callable[[], None]
) -> str | None:
    """Run, show, and return why the result is of no use, if it is of none."""
    from softdraw.cli.screens import TrainScreen
    from softdraw.recipes.autoencoder import AUTOENCODER, report
    from softdraw.recipes.runs.run import run

    out = out or Path("runs") / _name(given.get("data", "digits"))
    screen = TrainScreen(report, out, console, loaded)
    with screen:
        trainer = run(AUTOENCODER, given, out, resume, ranks, screen.start, screen.advance)
    screen.end(trainer)
    return report.failure(trainer)


def _name(data: str) -> str:
    """What a run on these images is called: the name of their file or folder."""
    return Path(data).resolve().name.partition(".")[0] or "images"
