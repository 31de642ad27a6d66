"""Why a check exists, asked by its code, by an error message or by a whole traceback."""

from __future__ import annotations

import re

from softdraw_doctor.checks import CHECKS
from softdraw_doctor.errors import InputError
from softdraw_doctor.finding import Check


def explain(query: str) -> str:
    """The explanation of the check that ``query`` names, or of every check whose mistake ends in that message."""
    query = query.strip()
    found = [c for c in CHECKS if c.code == query.upper()] or [c for c in CHECKS if _matches(c, query)]
    if not found:
        codes = ", ".join(check.code for check in CHECKS)
        raise InputError(
            f"no check knows {_short(query)!r}: give one of the codes ({codes}), or the message of an error "
            "that a loss or a draw ended in"
        )
    return "\n\n".join(f"{check.code} {type(check).__name__}\n\n{check.explanation}" for check in found)


def _matches(check: Check, text: str) -> bool:
    return any(re.search(symptom, text, re.IGNORECASE) for symptom in check.symptoms)


def _short(query: str) -> str:
    line = query.splitlines()[-1] if query else ""
    return line if len(line) <= 80 else line[:77] + "..."
