"""``softdraw doctor``: the command ``softdraw-doctor``, where that distribution is installed."""

from __future__ import annotations

import typer

from softdraw.errors import InputError


def doctor(context: typer.Context) -> int:
    """Find loss and sampling code that gives wrong numbers; explain it; rewrite it (needs softdraw-doctor)."""
    try:
        from softdraw_doctor.command import run
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != "softdraw_doctor":
            raise
        raise InputError(
            "the doctor is a distribution of its own and is not installed: pip install softdraw-doctor, or, in a clone "
            "of softdraw, pip install ./doctor"
        ) from None
    return run(context.args)
