"""``softdraw train``: a discrete autoencoder on real images, from one command to its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from softdraw.cli.options import (
    Batch,
    Data,
    Device,
    Epochs,
    Latents,
    Lr,
    Schedule,
    Tau,
    check_tau_is_used,
    chosen,
    use_one_thread,
)
from softdraw.errors import InputError


def train(
    data: Data = None,
    latents: Latents = None,
    rule: Annotated[
        str | None,
        typer.Option(
            help="The gradient rule, as zgr or reinmax:tau=1.1; without its tau it follows --tau.  [gumbel-softmax]"
        ),
    ] = None,
    tau: Tau = None,
    schedule: Schedule = None,
    hard: Annotated[
        bool | None,
        typer.Option("--hard/--soft", help="Short for --rule straight-through-gumbel, or gumbel-softmax.  [soft]"),
    ] = None,
    epochs: Epochs = None,
    batch: Batch = None,
    lr: Lr = None,
    seed: Annotated[
        int | None, typer.Option(help="Decides the split, the weights, the order and every draw.  [0]")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The run's folder; holds no run yet, unless --resume.  [runs/ and the name of the data]"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out, or start it if there is none.")
    ] = False,
    device: Device = None,
) -> None:
    """Train a categorical variational autoencoder on real images through discrete draws.

    Without options: scikit-learn's 1,797 scanned digits, no download. Writes config.json, metrics.jsonl, checkpoint.pt
    and four pictures to --out. Several processes: torchrun --nproc-per-node 2 -m softdraw train ...
    """
    from softdraw.recipes.ranks import started

    use_one_thread()
    others: dict[str, Any] = {"data": data, "schedule": schedule, "epochs": epochs, "batch_size": batch}
    others |= {"learning_rate": lr, "seed": seed, "device": device}
    with started() as ranks:
        try:
            given = chosen(latents, tau, **others) | _rule(rule, hard, tau, schedule)
            _train(given, out, resume, ranks)
        except InputError as error:
            if ranks.count == 1:
                raise
            if ranks.first:  # the other ranks leave once it is printed, for the launcher ends all when one is gone
                typer.echo(f"softdraw: {error}", err=True)
            ranks.barrier()
            raise typer.Exit(2) from None


def _rule(rule: str | None, hard: bool | None, tau: str | None, schedule: str | None) -> dict[str, Any]:
    """The settings that --rule, --hard or --soft stand for."""
    from softdraw.recipes.settings import parse_rule

    if hard is not None:
        short = "straight-through-gumbel" if hard else "gumbel-softmax"
        if rule is not None:
            raise InputError(f"--{'hard' if hard else 'soft'} is short for --rule {short}, got --rule {rule} as well")
        rule = short
    if rule is None:
        return {}
    words = parse_rule(rule)
    check_tau_is_used([words], tau, schedule)
    return words


def _train(given: dict[str, Any], out: Path | None, resume: bool, ranks) -> None:
    from softdraw.cli.display import Display
    from softdraw.recipes.run import run

    out = out or Path("runs") / Path(given.get("data", "digits")).name.partition(".")[0]
    display = Display(out, quiet=not ranks.first)
    with display:
        trainer = run(given, out, resume, ranks, display.start, display.advance)
    display.table(trainer)
