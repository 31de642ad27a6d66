"""The ``softdraw`` command, one subcommand a file; a bad input ends in one line on standard error and exit code 2.

A command file imports what is heavy inside its function, so that a command loads only what it uses itself, and
``softdraw --help`` loads no torch.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from softdraw.cli.bench import bench
from softdraw.cli.compare import compare
from softdraw.cli.conformance import conformance
from softdraw.cli.diagnose import diagnose
from softdraw.cli.doctor import doctor
from softdraw.cli.flags import line
from softdraw.cli.info import info
from softdraw.cli.reproduce import reproduce
from softdraw.cli.sample import sample
from softdraw.cli.train import app as train
from softdraw.errors import InputError

app = typer.Typer(
    name="softdraw",
    help="Discrete draws that keep their gradient.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(train)
for command in (compare, diagnose, conformance, reproduce, bench, info):
    app.command()(command)
app.command(context_settings={"ignore_unknown_options": True})(sample)  # logits may begin with a minus
app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)(doctor)  # it has options of its own


def _print_version(wanted: bool) -> None:
    if wanted:
        import softdraw

        print(softdraw.__version__)
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, help="Print it and exit.")] = False,
) -> None:
    """Discrete draws that keep their gradient."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path may hold what the terminal cannot show
    try:
        code = app(args=arguments, prog_name="softdraw", standalone_mode=False)
        sys.stdout.flush()  # flushed here, so that an output that cannot be written gives one line and no error at exit
    except InputError as error:
        return _refused(str(error))
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:  # the reader has ended, as in softdraw sample ... | head
        _drop_output()
        return 1  # typer's, where it meets the same error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _drop_output()
        return _refused("the output cannot be written (no space left): free some, or send it elsewhere")
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not re.search("out of memory|allocate memory", str(error)):
            raise
        return _refused(f"the memory does not suffice ({str(error).partition(chr(10))[0][:120]}): take smaller sizes")
    except Exception as error:
        if not hasattr(error, "format_message"):  # every version of typer's (and click's) usage errors has it
            raise
        message = error.format_message()  # pyright: ignore[reportAttributeAccessIssue]
        return _refused(f"{message.rstrip('.')}: see softdraw --help")
    return code if isinstance(code, int) else 0


def _drop_output() -> None:
    """Discard what was not written, because Python would try again at its exit and report an error."""
    with contextlib.suppress(io.UnsupportedOperation):  # an output that is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refused(message: str) -> int:
    print(line(message), file=sys.stderr)
    return 2
