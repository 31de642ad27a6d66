"""``softdraw compare``: which gradient rule trains best, each on the same data and seeds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from softdraw.cli import flags
from softdraw.cli.options import Options, takes_options, use_one_thread


@takes_options
def compare(
    options: Options,
    rules: Annotated[
        str, typer.Option(help="Rules, separated by commas; one without its tau follows --tau and --schedule.")
    ] = "gumbel-softmax,straight-through-gumbel,st:tau=1,zgr,reinmax:tau=1.1",
    seeds: Annotated[int, typer.Option(help="Runs of each rule, with the seeds 0, 1, ...")] = 3,
    out: Annotated[
        Path, typer.Option(help="The folder of the comparison; one that was stopped goes on where it was.")
    ] = Path("runs/compare"),
) -> None:
    """Train the autoencoder of softdraw train with each gradient rule, on the same data and seeds, and compare.

    Writes a run's folder for every rule and seed, and compare.json and compare.png, to --out. The same command
    continues a comparison that was stopped; --rules and --seeds may then name more. Where a run diverges, it ends with
    exit code 1.
    """
    from softdraw.cli import screens

    console = screens.console()
    with screens.loading(console, "torch and the images") as loaded:
        from softdraw.recipes.autoencoder import AUTOENCODER, report
        from softdraw.recipes.autoencoder.recipe import variants
        from softdraw.recipes.runs.compare import compare, plan

        use_one_thread()
        chosen = variants(rules.split(","))
        runs = plan(chosen, seeds)
        options.check_tau_is_used(chosen.values())
        screen = screens.CompareScreen(AUTOENCODER, report, len(runs), out, console, loaded)
        with screen:
            found = compare(AUTOENCODER, options.settings(), runs, out, screen.start, screen.advance)
        screen.end(found)
    for failure in screen.failures:
        print(flags.line(failure), file=sys.stderr)
    if screen.failures:
        raise typer.Exit(1)
