"""The options that ``softdraw train`` and ``softdraw compare`` share, and how they become settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from softdraw.errors import InputError

Data = Annotated[
    str | None,
    typer.Option(help="digits, or an .npy, .npz, idx or idx.gz file of images (N, H, W) or (N, D).  [digits]"),
]
Latents = Annotated[str | None, typer.Option(help="Groups x categories of the code.  [10x10]")]
Tau = Annotated[str | None, typer.Option(help="The rule's temperature, start:end or one number.  [1.0:0.5]")]
Schedule = Annotated[
    str | None, typer.Option(help="How tau goes: constant, linear, cosine or exponential.  [exponential]")
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training images.  [200]")]
Batch = Annotated[int | None, typer.Option(help="Images a step, over all ranks.  [64]")]
Lr = Annotated[float | None, typer.Option(help="Adam's learning rate.  [0.002]")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...  [auto]")]


def chosen(latents: str | None, tau: str | None, **others: Any) -> dict[str, Any]:
    """The settings that were chosen; what was not is left out."""
    from softdraw.recipes.settings import parse_latents, parse_tau

    given = {name: value for name, value in others.items() if value is not None}
    given |= parse_latents(latents) if latents is not None else {}
    return given | (parse_tau(tau) if tau is not None else {})


def check_tau_is_used(rules: Sequence[dict[str, Any]], tau: str | None, schedule: str | None) -> None:
    """Refuse a tau or schedule that none of these rules would follow, being without one or given with their own."""
    from softdraw.recipes.settings import Settings

    option = "--tau" if tau is not None else "--schedule" if schedule is not None else None
    if option and all("tau_start" in words or not Settings(**words).has_tau for words in rules):
        names = ", ".join(words["rule"] for words in rules)
        raise InputError(f"{option} plays no part: {names} is given with its own tau or has none; leave it out")


def use_one_thread() -> None:
    """Unless OMP_NUM_THREADS says how many.

    Layers this small gain nothing from threads, which wait for each other by spinning where others want the cores too;
    and with one the sums, hence the metrics, are the same on machines of any number of cores.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(1)
