"""``softdraw train``: a recipe, from one command to what it made. Each has a file here; without a name it is the first.

A recipe's command has options of its own, and hands what was chosen to ``start.train``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import typer

from softdraw.cli.train.autoencoder import autoencoder
from softdraw.cli.train.diffusion import diffusion
from softdraw.cli.train.selector import selector
from softdraw.errors import InputError

RECIPES = (autoencoder, diffusion, selector)

app = typer.Typer(
    name="train",
    add_completion=False,
    rich_markup_mode=None,
    subcommand_metavar="[RECIPE] [ARGS]...",
)


def _unless_named(command: Callable[..., None]) -> Callable[..., None]:
    """The command with its own options, for a command line that names no recipe."""

    def wrapped(context: typer.Context, **given: Any) -> None:
        recipe = context.invoked_subcommand
        if recipe is None:
            command(**given)
        elif any(value is not own[name].default for name, value in given.items()):
            raise InputError(f"options stand after the recipe: softdraw train {recipe} [OPTIONS]")

    own = inspect.signature(command).parameters
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    wrapped.__signature__ = inspect.Signature([context, *own.values()])  # pyright: ignore[reportFunctionMemberAccess]
    wrapped.__annotations__ = {"context": typer.Context, **command.__annotations__}
    title = f"Train a recipe; without its name the {command.__name__}, whose options these are."
    wrapped.__doc__ = f"{title}\n\n{inspect.getdoc(command)}"
    return wrapped


app.callback(invoke_without_command=True)(_unless_named(RECIPES[0]))
for recipe in RECIPES:
    app.command()(recipe)
