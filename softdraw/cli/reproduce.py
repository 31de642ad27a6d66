"""``softdraw reproduce``: published figures beside ours."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Annotated

import typer


class Study(str, Enum):
    """What can be reproduced."""

    bias_variance = "bias-variance"
    polynomial = "polynomial"
    bernoulli = "bernoulli"
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
) -> None:
    """Compute a study's figures again and print them beside the published ones."""
    from softdraw.errors import InputError
    from softdraw.reproduce import bernoulli, bias_variance, orders, polynomial

    if steps is not None and steps < 1:
        raise InputError(f"--steps must be at least 1, got {steps}")
    if study is Study.bias_variance:
        print(bias_variance.run(track=_bar))
    elif study is Study.bernoulli:
        print(bernoulli.run())
    elif study is Study.orders:
        print(orders.run(steps or orders.STEPS, track=_bar))
    elif p not in polynomial.OPTIMUM:
        raise InputError(f"--p {p:g} has no published figures: choose 1.5, 2 or 3")
    else:
        print(polynomial.run(p, steps or polynomial.STEPS, _bar))


def _bar(rows: list) -> Iterable:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(rows, description="rules", console=console, transient=True, disable=not console.is_terminal)
