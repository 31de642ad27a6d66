"""A run's folder: what it may hold, and atomic writes.

A file is written under another name, forced to the disk and then renamed over its predecessor, so that a process that
is killed at any moment leaves the old file or the new one, never a part.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from softdraw.errors import InputError

_FILES = ("config.json", "metrics.jsonl", "checkpoint.pt")
_PART = ".part"


class Folder:
    """The folder at ``path``; nothing is looked at before :meth:`open`, and nothing written before :meth:`create`.

    Args:
        path: where it is or will be.
        pictures: the names of a run's pictures.
        nested: whether other files and folders may stand beside its ``config.json``: a comparison has its runs there.
    """

    def __init__(self, path: Path, pictures: Sequence[str] = (), nested: bool = False) -> None:
        self.path, self.pictures, self.nested = path, pictures, nested
        self._held: int | None = None

    def open(self, resume: bool) -> dict[str, Any] | None:
        """The ``config.json`` of the run that is here, None where there is no run yet.

        Args:
            resume: whether it may hold a run already.

        Raises:
            InputError: it holds a run and ``resume`` is False, or it holds anything else.
        """
        try:
            found = sorted(os.listdir(self.path)) if os.path.lexists(self.path) else []
        except OSError as error:
            raise InputError(f"`out` {self.path} cannot be used ({error.strerror}): give another folder") from None
        started = not {"config.json", "config.json.part", "checkpoint.pt"}.isdisjoint(found)
        own = {*_FILES, *self.pictures}
        foreign = [name for name in found if not (started and (self.nested or name.removesuffix(_PART) in own))]
        if foreign:
            raise InputError(f"`out` {self.path} holds other files ({foreign[0]}): give a new folder")
        if found and not resume:
            raise InputError(
                f"`out` {self.path} holds a run already: add `resume` to continue it, or give a new folder"
            )
        return self._config()

    def _config(self) -> dict[str, Any] | None:
        file = self.path / "config.json"
        try:
            if not file.exists():
                if (self.path / "checkpoint.pt").exists():
                    raise InputError(f"{self.path} holds a checkpoint but no config.json: give another folder")
                return None
            self._lock()
            return dict(json.loads(file.read_text()))
        except InputError:
            raise
        except (OSError, ValueError, TypeError):
            raise InputError(f"{file} is not the configuration of a run: give another folder") from None

    def create(self, config: dict[str, Any]) -> None:
        """Make the folder and write its ``config.json``."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"`out` {self.path} cannot be made ({error.strerror}): give another folder") from None
        self._lock()
        if (self.path / "config.json").exists():  # made by another process since this one looked
            raise InputError(f"`out` {self.path} holds a run already: give another folder")
        self.configure(config)

    def configure(self, config: dict[str, Any]) -> None:
        """Replace the ``config.json``."""
        self.write("config.json", (json.dumps(config, indent=2) + "\n").encode())

    def release(self) -> None:
        """Let other processes have the folder."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _lock(self) -> None:
        """Hold the folder until ``release`` or the process's end, where the system has such locks (not on Windows)."""
        try:
            import fcntl
        except ModuleNotFoundError:
            return
        try:
            self._held = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise InputError(f"`out` {self.path} cannot be used ({error.strerror}): give another folder") from None
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"`out` {self.path} is in use by another run: wait, or give another folder") from None

    def write(self, name: str, content: bytes) -> None:
        """Replace the file ``name`` by ``content``, whole or not at all."""
        part = self.path / (name + _PART)
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.path / name)
            self._sync()
        except OSError as error:
            raise InputError(
                f"`out` {self.path}: {name} cannot be written ({error.strerror}): "
                + ("free some space, or " if error.errno == errno.ENOSPC else "")
                + "give another folder"
            ) from None

    def _sync(self) -> None:
        """Force the renaming itself to the disk, where folders can be opened (not on Windows)."""
        with contextlib.suppress(PermissionError):
            handle = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def save(self, state: dict[str, Any]) -> None:
        """Write ``metrics.jsonl`` and then ``checkpoint.pt``, which holds the same metrics and is what counts."""
        lines = "".join(json.dumps(record) + "\n" for record in state["history"])
        self.write("metrics.jsonl", lines.encode())
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.write("checkpoint.pt", buffer.getvalue())

    def load(self) -> dict[str, Any] | None:
        """The last checkpoint, None before the first; the metrics are put back to where it was."""
        file = self.path / "checkpoint.pt"
        if not file.exists():
            return None
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            lines = "".join(json.dumps(record) + "\n" for record in state["history"])
        except Exception:  # a broken archive can fail in many ways
            raise InputError(f"{file} cannot be read: give another `out` to start again") from None
        self.write("metrics.jsonl", lines.encode())
        return state

    def write_pictures(self, draw: Callable[[Any], dict[str, bytes]], trainer: Any) -> None:
        """Write the pictures, unless they are there: those of a finished run that is resumed."""
        if not all((self.path / name).exists() for name in self.pictures):
            for name, picture in draw(trainer).items():
                self.write(name, picture)

    def forget_pictures(self) -> None:
        """Remove the pictures: the run goes on, and they are drawn again at its end."""
        for name in self.pictures:
            try:
                (self.path / name).unlink(missing_ok=True)
            except OSError as error:
                raise InputError(
                    f"`out` {self.path}: {name} cannot be replaced ({error.strerror}): give another folder"
                ) from None
