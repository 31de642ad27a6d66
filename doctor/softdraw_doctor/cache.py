"""What earlier runs found, by a file's content, the checks and the version: an unchanged file is not analysed again.

One small file an entry, written in one step, so that runs beside each other cannot harm it. An entry that cannot be
read is as good as none, and a folder that cannot be written costs nothing but time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

from softdraw_doctor import __version__
from softdraw_doctor.finding import Edit, Finding

_DAY = 86_400.0
_KEPT = 30 * _DAY  # an entry that no run has asked for in that time goes


def folder() -> Path:
    """$SOFTDRAW_DOCTOR_CACHE, or a folder of that name among the user's caches."""
    if given := os.environ.get("SOFTDRAW_DOCTOR_CACHE"):
        return Path(given)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    else:
        base = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "softdraw-doctor"


class Cache:
    """The findings of some checks, by text."""

    def __init__(self, place: Path | None, codes: Sequence[str]) -> None:
        """``place`` is the folder, or None for no cache."""
        self._place = place
        self._settings = "\n".join((*_fingerprint(), *codes, "")).encode()

    def get(self, text: str, path: str) -> tuple[Finding, ...] | None:
        """What was found in that text, as if it were ``path``'s, or None where that is not known."""
        if self._place is None:
            return None
        entry = self._entry(text, path)
        try:
            rows = json.loads(entry.read_bytes())
            found = tuple(_finding(row, path) for row in rows)
            if time.time() - entry.stat().st_mtime > _DAY:
                os.utime(entry)
            return found
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def put(self, text: str, path: str, findings: Iterable[Finding]) -> None:
        if self._place is None:
            return
        entry = self._entry(text, path)
        rows = [{key: value for key, value in asdict(f).items() if key != "path"} for f in findings]
        with contextlib.suppress(OSError):
            entry.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=entry.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(rows, file)
                os.replace(name, entry)
            except BaseException:
                os.unlink(name)
                raise

    def prune(self) -> None:
        """Once a day, delete the entries that have not been asked for in a month."""
        if self._place is None:
            return
        with contextlib.suppress(OSError):
            stamp, now = self._place / "pruned", time.time()
            if stamp.exists() and now - stamp.stat().st_mtime < _DAY:
                return
            self._place.mkdir(parents=True, exist_ok=True)
            stamp.touch()
            for entry in self._place.glob("??/*"):
                with contextlib.suppress(OSError):  # another run may have deleted it
                    if now - entry.stat().st_mtime > _KEPT:
                        entry.unlink()

    def _entry(self, text: str, path: str) -> Path:
        """A notebook's text can be Python as well, so the kind of file counts."""
        assert self._place is not None
        kind = os.path.splitext(path)[1].lower().encode()
        key = hashlib.sha256(self._settings + kind + b"\n" + text.encode("utf-8", "surrogatepass")).hexdigest()
        return self._place / key[:2] / key[2:]


def _finding(row: dict, path: str) -> Finding:
    return Finding(**{**row, "path": path, "edits": tuple(Edit(**edit) for edit in row["edits"])})


@cache
def _fingerprint() -> tuple[str, ...]:
    """The versions of the doctor and of Python; its files too, because a checkout changes without a new version."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    state = [f"{file.name} {status.st_mtime_ns} {status.st_size}" for file in files if (status := file.stat())]
    return (__version__, ".".join(map(str, sys.version_info[:2])), *state)
