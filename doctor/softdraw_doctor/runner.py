"""Many files at once: the checks that were chosen, over every file, in several processes."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import libcst as cst

from softdraw_doctor.cache import Cache
from softdraw_doctor.checks import CHECKS
from softdraw_doctor.engine import examine, names_torch, repair
from softdraw_doctor.errors import InputError
from softdraw_doctor.files import UnreadableError, imported_names, read, write
from softdraw_doctor.finding import Check, Finding
from softdraw_doctor.notebook import Notebook, NotebookError

_CHUNK = 16  # files that a process takes at once
_ALONE = 64  # up to so many files, starting processes costs more than it saves


@dataclass(frozen=True)
class Examined:
    """The result for one file: its findings (with ``fix``, those left), or one line that says why there is none."""

    path: str
    findings: tuple[Finding, ...] = ()
    error: str = ""
    old: str = ""
    new: str = ""
    fixed: int = 0
    skipped: bool = False  # it does not name torch, so nothing was asked of it


@dataclass(frozen=True)
class Work:
    """What is done to each file; ``taken`` are the names that files import from each other."""

    codes: tuple[str, ...]
    cache: Cache
    fix: bool = False
    unsafe: bool = False
    taken: dict[str, set[str]] = field(default_factory=dict)

    def known(self, path: Path) -> Examined | None:
        """The result of a file, if it takes no analysis."""
        try:
            text, _ = read(path)
        except UnreadableError as error:
            return Examined(str(path), error=str(error))
        if not names_torch(text):
            return Examined(str(path), skipped=True)
        found = self.cache.get(text, str(path))
        return None if found is None or self._repairs(found) else Examined(str(path), found, "", text, text)

    def one(self, path: Path) -> Examined:
        """The result of a file; with ``fix`` it is written where it changes."""
        try:
            text, encoding = read(path)
            result = self.text(text, str(path), self.taken.get(path.stem, ()))
            if result.new != result.old:
                write(path, result.new, encoding)
            return result
        except UnreadableError as error:
            return Examined(str(path), error=str(error))
        except OSError as error:
            return Examined(str(path), error=f"{path}: cannot be written: {error.strerror}")

    def text(self, text: str, path: str, keep: Iterable[str] = ()) -> Examined:
        """The result for a text that ``path`` holds; nothing is written."""
        try:
            return self._text(text, path, tuple(keep))
        except NotebookError as error:
            return Examined(path, error=f"{path}: {error}")
        except cst.ParserSyntaxError as error:
            return Examined(path, error=f"{path}:{error.raw_line}: does not parse as Python")
        except RecursionError:
            return Examined(path, error=f"{path}: nested too deeply to examine")
        except Exception as error:  # a fault of the doctor must not cost the other files their results
            what = " ".join(f"{type(error).__name__}: {error}".split())
            said = f"the doctor failed and left the file as it was ({what}): please report it"
            return Examined(path, error=f"{path}: {said}")

    def _text(self, text: str, path: str, keep: tuple[str, ...]) -> Examined:
        if not names_torch(text):
            return Examined(path, skipped=True, old=text, new=text)
        checks = [check for check in CHECKS if check.code in self.codes]
        notebook = Notebook(text) if path.lower().endswith(".ipynb") else None
        code = notebook.code if notebook else text
        findings = tuple(examine(code, path, checks))
        self.cache.put(text, path, _placed(notebook, findings))
        if not self._repairs(findings):
            return Examined(path, _placed(notebook, findings), "", text, text)
        result = repair(code, path, checks, self.unsafe, keep)
        new = notebook.changed(result.text) if notebook else result.text
        return Examined(path, _placed(notebook and Notebook(new), result.left), "", text, new, result.fixed)

    def _repairs(self, findings: Iterable[Finding]) -> bool:
        return self.fix and any(f.fixable and (self.unsafe or not f.unsafe) for f in findings)


def _placed(notebook: Notebook | None, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    return tuple(notebook.located(f) for f in findings) if notebook else findings


def chosen(select: Sequence[str] = (), ignore: Sequence[str] = ()) -> list[Check]:
    """The checks whose code starts with one of ``select`` (default: all that are on) and none of ``ignore``."""
    for prefix in (*select, *ignore):
        if not any(check.code.startswith(prefix) for check in CHECKS):
            known = ", ".join(check.code for check in CHECKS)
            raise InputError(f"no check has the code {prefix}: the codes are {known}")
    return [
        check
        for check in CHECKS
        if (check.code.startswith(tuple(select)) if select else check.default)
        and not check.code.startswith(tuple(ignore) or ("-",))
    ]


def run(
    files: Sequence[Path],
    checks: Sequence[Check],
    *,
    fix: bool = False,
    unsafe: bool = False,
    jobs: int | None = None,
    cache: Path | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Iterator[Examined]:
    """One result a file, in the order of ``files``; with ``fix`` each file that can be repaired is written.

    ``cache`` is the folder in which results are kept for the next run.
    """
    codes = tuple(check.code for check in checks)
    work = Work(codes, Cache(cache, codes), fix, unsafe, imported_names(files) if fix else {})
    known = [work.known(file) for file in files]
    left = [file for file, result in zip(files, known, strict=True) if result is None]
    analysed = _analysed(work, left, jobs or os.cpu_count() or 1)
    for result in known:
        yield result or next(analysed)
        progress()
    work.cache.prune()


def _analysed(work: Work, files: Sequence[Path], jobs: int) -> Iterator[Examined]:
    if jobs == 1 or len(files) <= _ALONE:
        yield from map(work.one, files)
        return
    # A syntax tree is many small objects that all live as long as it does, so collecting garbage often is of no use.
    with ProcessPoolExecutor(jobs, initializer=gc.set_threshold, initargs=(200_000, 20, 100)) as pool:
        done = 0
        try:
            for result in pool.map(work.one, files, chunksize=_CHUNK):
                done += 1
                yield result
        except BrokenProcessPool:
            error = "a process of the doctor died (out of memory?) before it had a result"
            yield from (Examined(str(file), error=f"{file}: {error}") for file in files[done:])
