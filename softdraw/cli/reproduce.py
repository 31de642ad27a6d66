"""``softdraw reproduce``: published figures beside ours, and what coarse noise does to a law."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from softdraw.cli.places import writing
from softdraw.errors import InputError


class Study(str, Enum):
    """What can be reproduced."""

    bias_variance = "bias-variance"
    polynomial = "polynomial"
    bernoulli = "bernoulli"
    precision = "precision"
    orders = "orders"


def reproduce(
    study: Annotated[Study, typer.Argument(help="Which published figures.")],
    p: Annotated[float, typer.Option(help="polynomial: the power, 1.5, 2 or 3.")] = 2.0,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Steps of training; published are polynomial after 8000 and orders after 50000.  [as published]"
        ),
    ] = None,
    values: Annotated[
        int, typer.Option(help="precision: noise values of the chi-square test, a minute or less; 0 leaves it out.")
    ] = 2**31,
    out: Annotated[Path, typer.Option(help="precision: directory for precision.png.")] = Path("runs/precision"),
) -> None:
    """Compute a study's figures again and print them beside the published ones.

    precision: the law that is drawn with noise of 24, 31, 53 and 64 bits, and a test of torch.rand and of this library.
    """
    from softdraw.reproduce import bernoulli, bias_variance, orders, polynomial

    if steps is not None and steps < 1:
        raise InputError(f"--steps must be at least 1, got {steps}")
    if study is Study.bias_variance:
        print(bias_variance.run(track=_bar))
    elif study is Study.bernoulli:
        print(bernoulli.run())
    elif study is Study.precision:
        _precision(values, out)
    elif study is Study.orders:
        print(orders.run(steps or orders.STEPS, track=_bar))
    elif p not in polynomial.OPTIMUM:
        raise InputError(f"--p {p:g} has no published figures: choose 1.5, 2 or 3")
    else:
        print(polynomial.run(p, steps or polynomial.STEPS, _bar))


def _precision(values: int, out: Path) -> None:
    from softdraw.recipes.runs import figures
    from softdraw.reproduce import chi_square, precision

    if values and values < chi_square.LEAST:
        raise InputError(f"--values must be 0 or at least {chi_square.LEAST}, got {values}: fewer draw nothing rare")
    figures.require()
    from softdraw.reproduce import precision_picture

    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        figure, axes = figures.subplots(6.5, 3.2)
        precision_picture.draw(axes)
        (out / "precision.png").write_bytes(figures.png(figure))
    print(precision.run(partial(_bar, description="noises")))
    print(f"\nwrote {out / 'precision.png'}")
    if values:
        print()
        print(chi_square.run(values, track=partial(_bar, description="draws")))


def _bar(rows: Sequence, description: str = "rules") -> Iterable:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(rows, description=description, console=console, transient=True, disable=not console.is_terminal)
