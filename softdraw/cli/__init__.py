"""The ``softdraw`` command, one subcommand a file; a bad input ends in one line on standard error and exit code 2.

A command file imports what is heavy inside its function, so that ``softdraw --help`` stays quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from softdraw.cli.bench import bench
from softdraw.cli.info import info
from softdraw.cli.sample import sample
from softdraw.cli.train import train
from softdraw.errors import InputError

app = typer.Typer(
    name="softdraw",
    help="Discrete draws that keep their gradient.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (train, bench, info):
    app.command()(command)
app.command(context_settings={"ignore_unknown_options": True})(sample)  # logits may begin with a minus


@app.callback()
def _program() -> None:
    """Discrete draws that keep their gradient."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = app(args=arguments, prog_name="softdraw", standalone_mode=False)
    except InputError as error:
        return _refused(str(error))
    except typer.Abort:
        return 130
    except Exception as error:
        if not hasattr(error, "format_message"):  # every version of typer's (and click's) usage errors has it
            raise
        message = error.format_message()  # pyright: ignore[reportAttributeAccessIssue]
        return _refused(f"{message.rstrip('.')}: see softdraw --help")
    return code if isinstance(code, int) else 0


def _refused(message: str) -> int:
    print("softdraw: " + " ".join(message.split()), file=sys.stderr)
    return 2
