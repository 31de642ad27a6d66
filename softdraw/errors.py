"""What the user is told: the error that the command line turns into a line and exit code 2, and warnings."""

from __future__ import annotations

import warnings


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line that says what it is and what to do."""


def counted(number: int, thing: str) -> str:
    """``1 epoch``, ``2,000 epochs``."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def warn(message: str) -> None:
    """A RuntimeWarning at the user's line: the innermost outside of softdraw, torch and generated code, whose globals
    have no name. How far up it is depends on what was called, so no fixed ``stacklevel`` finds it."""
    from inspect import currentframe  # not needed before: it takes a tenth of the time of `softdraw --help`

    frame = currentframe()
    assert frame is not None
    while frame.f_back and frame.f_globals.get("__name__", "torch").partition(".")[0] in ("softdraw", "torch"):
        frame = frame.f_back
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    warnings.warn_explicit(message, RuntimeWarning, frame.f_code.co_filename, frame.f_lineno, registry=registry)
