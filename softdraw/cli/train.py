"""``softdraw train``: a discrete autoencoder on real images, from one command to its pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from softdraw.errors import InputError


def train(
    data: Annotated[
        str | None,
        typer.Option(help="digits, or an .npy, .npz, idx or idx.gz file of images (N, H, W) or (N, D).  [digits]"),
    ] = None,
    latents: Annotated[str | None, typer.Option(help="Groups x categories of the code.  [10x10]")] = None,
    tau: Annotated[str | None, typer.Option(help="The relaxation, start:end or one number.  [1.0:0.5]")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="How tau goes: constant, linear, cosine or exponential.  [exponential]")
    ] = None,
    hard: Annotated[
        bool | None,
        typer.Option("--hard/--soft", help="Train on one-hots, straight-through, or on relaxed draws.  [soft]"),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.  [200]")] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step, over all ranks.  [64]")] = None,
    lr: Annotated[float | None, typer.Option(help="Adam's learning rate.  [0.002]")] = None,
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
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...  [auto]")] = None,
) -> None:
    """Train a categorical variational autoencoder on real images through discrete draws.

    Without options: scikit-learn's 1,797 scanned digits, no download. Writes config.json, metrics.jsonl, checkpoint.pt
    and four pictures to --out. Several processes: torchrun --nproc-per-node 2 -m softdraw train ...
    """
    import torch

    from softdraw.recipes.ranks import started

    if "OMP_NUM_THREADS" not in os.environ:
        # Layers this small gain nothing from threads, which wait for each other by spinning where others want the cores
        # too; and with one the sums, hence the metrics, are the same on machines of any number of cores.
        torch.set_num_threads(1)
    given: dict[str, Any] = {"data": data, "schedule": schedule, "hard": hard, "epochs": epochs, "batch_size": batch}
    given |= {"learning_rate": lr, "seed": seed, "device": device}
    with started() as ranks:
        try:
            _train(given, latents, tau, out, resume, ranks)
        except InputError as error:
            if ranks.count == 1:
                raise
            if ranks.first:  # the other ranks leave once it is printed, for the launcher ends all when one is gone
                typer.echo(f"softdraw: {error}", err=True)
            ranks.barrier()
            raise typer.Exit(2) from None


def _train(given: dict[str, Any], latents: str | None, tau: str | None, out: Path | None, resume: bool, ranks) -> None:
    from softdraw.cli.display import Display
    from softdraw.recipes.run import run
    from softdraw.recipes.settings import parse_latents, parse_tau

    given = {name: value for name, value in given.items() if value is not None}
    given |= parse_latents(latents) if latents is not None else {}
    given |= parse_tau(tau) if tau is not None else {}
    if out is None:
        out = Path("runs") / Path(given.get("data", "digits")).name.partition(".")[0]
    display = Display(out, quiet=not ranks.first)
    with display:
        trainer = run(given, out, resume, ranks, display.start, display.advance)
    display.table(trainer)
