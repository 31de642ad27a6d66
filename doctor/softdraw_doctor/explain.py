"""Why a check exists, asked by its code, by an error message or by a whole traceback."""

from __future__ import annotations

import re

from softdraw_doctor.checks import CHECKS
from softdraw_doctor.errors import InputError
from softdraw_doctor.errors_explained import ERRORS, Explained
from softdraw_doctor.finding import Check


def explain(query: str) -> str:
    """The explanation of the check that ``query`` names, or of every check and error that the message belongs to."""
    query = query.strip()
    found = [c for c in CHECKS if c.code == query.upper()] or [c for c in CHECKS if _matches(c, query)]
    errors = [] if query.upper() in {c.code for c in CHECKS} else [e for e in ERRORS if _matches(e, query)]
    if not found and not errors:
        codes = ", ".join(check.code for check in CHECKS)
        raise InputError(
            f"no check knows {_short(query)!r}: give one of the codes ({codes}), or the message of an error "
            "that a loss or a draw ended in"
        )
    parts = [f"{check.code} {type(check).__name__}\n\n{check.explanation}" for check in found]
    return "\n\n".join([*parts, *(f"{error.title}\n\n{error.explanation}" for error in errors)])


def _matches(known: Check | Explained, text: str) -> bool:
    return any(re.search(symptom, text, re.IGNORECASE) for symptom in known.symptoms)


def _short(query: str) -> str:
    line = query.splitlines()[-1] if query else ""
    return line if len(line) <= 80 else line[:77] + "..."
