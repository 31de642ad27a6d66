"""The error that the command line turns into a line and exit code 2."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line that says what it is and what to do."""
