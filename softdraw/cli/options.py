"""The options that several commands share: those of the autoencoder and of its comparison, those of any recipe."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_type_hints

import typer

from softdraw.errors import InputError

Seed = Annotated[int | None, typer.Option(help="Decides the split, the weights, the order and every draw.  [0]")]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Continue the run in --out, or start it if there is none; more --epochs extend it."),
]


@dataclass(frozen=True)
class Options:
    """What was chosen of an autoencoder; None stands for the default of the settings."""

    data: Annotated[
        str | None,
        typer.Option(
            help="digits, an .npy, .npz, idx or idx.gz file of images (N, H, W) or (N, D), or a folder of "
            "image files.  [digits]"
        ),
    ] = None
    latents: Annotated[str | None, typer.Option(help="Groups x categories of the code.  [10x10]")] = None
    tau: Annotated[str | None, typer.Option(help="The rule's temperature, start:end or one number.  [1.0:0.5]")] = None
    schedule: Annotated[
        str | None, typer.Option(help="How tau goes: constant, linear, cosine or exponential.  [exponential]")
    ] = None
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.  [200]")] = None
    batch: Annotated[int | None, typer.Option(help="Images a step, over all ranks.  [64]")] = None
    lr: Annotated[float | None, typer.Option(help="Adam's learning rate.  [0.002]")] = None
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...  [auto]")] = None

    def settings(self) -> dict[str, Any]:
        """The settings that were chosen; what was not is left out."""
        given = {
            "data": self.data,
            "schedule": self.schedule,
            "epochs": self.epochs,
            "batch_size": self.batch,
            "learning_rate": self.lr,
            "device": self.device,
        }
        given |= parse_latents(self.latents) if self.latents is not None else {}
        given |= parse_tau(self.tau) if self.tau is not None else {}
        return {name: value for name, value in given.items() if value is not None}

    def check_tau_is_used(self, rules: Iterable[dict[str, Any]]) -> None:
        """Refuse a tau or schedule that none of these rules would follow, being without one or given with their own."""
        from softdraw.recipes.autoencoder.settings import Settings

        option = "--tau" if self.tau is not None else "--schedule" if self.schedule is not None else None
        if option and all("tau_start" in words or not Settings(**words).has_tau for words in rules):
            names = ", ".join(words["rule"] for words in rules)
            raise InputError(f"{option} plays no part: {names} is given with its own tau or has none; leave it out")


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for every field of :class:`Options` in place of its parameter ``options``.

    typer reads a command's options from its signature and its type hints, so both are those of the fields.
    """

    def wrapped(**given: Any) -> None:
        command(options=Options(**{f.name: given.pop(f.name) for f in fields(Options)}), **given)

    hints, shared = get_type_hints(command, include_extras=True), get_type_hints(Options, include_extras=True)
    parameters: list[inspect.Parameter] = []
    for own in inspect.signature(command).parameters.values():
        taken = [(f.name, f.default, shared[f.name]) for f in fields(Options)]
        for name, default, hint in taken if own.name == "options" else [(own.name, own.default, hints[own.name])]:
            parameters.append(inspect.Parameter(name, own.KEYWORD_ONLY, default=default, annotation=hint))
    wrapped.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    return wrapped


def parse_latents(text: str) -> dict[str, int]:
    """``"20x10"`` as 20 groups of 10 categories."""
    match = re.fullmatch(r"\s*(\d{1,6})\s*[xX×]\s*(\d{1,6})\s*", text)
    if not match:
        raise InputError(f"--latents must be groups x categories, as in 20x10, got {text!r}")
    return {"groups": int(match[1]), "categories": int(match[2])}


def parse_tau(text: str) -> dict[str, float]:
    """``"1.0:0.5"`` as start and end; one number is both."""
    start, colon, end = text.partition(":")
    try:
        return {"tau_start": float(start), "tau_end": float(end if colon else start)}
    except ValueError:
        raise InputError(f"--tau must be a number, or start:end as in 1.0:0.5, got {text!r}") from None


def use_one_thread() -> None:
    """Unless OMP_NUM_THREADS says how many.

    Layers this small gain nothing from threads, which wait for each other by spinning where others want the cores too;
    and with one the sums, hence the metrics, are the same on machines of any number of cores.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(1)
