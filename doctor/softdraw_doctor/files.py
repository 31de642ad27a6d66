"""Files of Python source: find them, read them as Python would, replace them in one step."""

from __future__ import annotations

import fnmatch
import io
import os
import re
import tempfile
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

SUFFIXES = (".py", ".ipynb")
_NEVER = ("__pycache__", "node_modules", "venv")
_FROM = re.compile(r"^[ \t]*from[ \t]+(\.*[\w.]+)[ \t]+import[ \t]*(\([^)]*\)|(?:\\\r?\n|[^\n#;])*)", re.MULTILINE)


class UnreadableError(Exception):
    """A file that cannot be examined; the message is one line that names it."""


def source_files(paths: Iterable[Path], exclude: Sequence[str] = ()) -> Iterator[Path]:
    """Every ``.py`` file and notebook under the paths, once; not in hidden folders, nor what ``exclude`` names."""
    seen: set[Path] = set()
    for path in paths:
        for file in sorted(_below(path, exclude)) if path.is_dir() else [path]:
            if file not in seen:
                seen.add(file)
                yield file


def _below(root: Path, exclude: Sequence[str]) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        folders[:] = [n for n in folders if n[0] != "." and n not in _NEVER and not _excluded(here / n, root, exclude)]
        yield from (here / n for n in names if n.endswith(SUFFIXES) and not _excluded(here / n, root, exclude))


def _excluded(path: Path, root: Path, patterns: Sequence[str]) -> bool:
    """Whether the name, the path below the root or the path as given fits a pattern."""
    forms = (path.name, path.relative_to(root).as_posix(), path.as_posix())
    return any(fnmatch.fnmatch(form, pattern.rstrip("/")) for form in forms for pattern in patterns)


def excluded(path: Path, patterns: Sequence[str]) -> bool:
    """Whether a pattern fits one file or a folder above it, as when the folder of the settings is examined."""
    inside = [f"*/{pattern}" for pattern in patterns]
    return any(_excluded(part, Path(part.anchor), (*patterns, *inside)) for part in (path, *path.parents))


def read(path: Path) -> tuple[str, str]:
    """The text, its line ends untouched, and its encoding (a PEP 263 cookie, a byte order mark, or UTF-8)."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        what = "a broken link" if path.is_symlink() else "no such file"
        raise UnreadableError(f"{path}: {what}") from None
    except OSError as error:
        raise UnreadableError(f"{path}: cannot be read: {error.strerror}") from None
    return decoded(data, str(path))


def decoded(data: bytes, path: str) -> tuple[str, str]:
    """As `read`, of bytes."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return data.decode(encoding), encoding
    except (SyntaxError, UnicodeDecodeError, LookupError):
        raise UnreadableError(f"{path}: not UTF-8, nor what its coding line says") from None


def imported_names(files: Sequence[Path]) -> dict[str, set[str]]:
    """For the last part of each module's name, the names that these files and their neighbours import from it.

    "*" is one of the names where a file imports everything.
    """
    found: dict[str, set[str]] = {}
    for path in {*files, *(near for file in files for near in file.parent.glob("*.py"))}:
        try:
            text, _ = read(path)
        except UnreadableError:
            continue
        for module, names in _FROM.findall(text):
            found.setdefault(module.rpartition(".")[2], set()).update(re.findall(r"\w+|\*", names))
    return found


def write(path: Path, text: str, encoding: str) -> None:
    """Put a new version of the file in place in one step, with the permissions of the old one."""
    path = path.resolve()
    data = text.encode(encoding)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(name, path.stat().st_mode & 0o7777)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
