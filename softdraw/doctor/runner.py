"""Many files at once: the checks that were chosen, over every file, in several processes."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import libcst as cst

from softdraw.doctor.checks import CHECKS
from softdraw.doctor.engine import examine, repair
from softdraw.doctor.files import UnreadableError, imported_names, read, write
from softdraw.doctor.finding import Check, Finding
from softdraw.errors import InputError

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
    progress: Callable[[], object] = lambda: None,
) -> Iterator[Examined]:
    """One result a file, in the order of ``files``; with ``fix`` each file that can be repaired is written."""
    taken = imported_names(files) if fix else {}
    one = partial(_one, codes=tuple(check.code for check in checks), fix=fix, unsafe=unsafe, taken=taken)
    jobs = jobs or os.cpu_count() or 1
    if jobs == 1 or len(files) <= _ALONE:
        yield from _counted(map(one, files), progress)
        return
    # A syntax tree is many small objects that all live as long as it does, so collecting garbage often is of no use.
    with ProcessPoolExecutor(jobs, initializer=gc.set_threshold, initargs=(200_000, 20, 100)) as pool:
        done = 0
        try:
            for result in _counted(pool.map(one, files, chunksize=_CHUNK), progress):
                done += 1
                yield result
        except BrokenProcessPool:
            error = "a process of the doctor died (out of memory?) before it had a result"
            yield from (Examined(str(file), error=f"{file}: {error}") for file in files[done:])


def _counted(results: Iterable[Examined], progress: Callable[[], object]) -> Iterator[Examined]:
    for result in results:
        progress()
        yield result


def _one(path: Path, codes: tuple[str, ...], fix: bool, unsafe: bool, taken: dict[str, set[str]]) -> Examined:
    name = str(path)
    checks = [check for check in CHECKS if check.code in codes]
    try:
        text, encoding = read(path)
        if not fix:
            return Examined(name, tuple(examine(text, name, checks)))
        result = repair(text, name, checks, unsafe, taken.get(path.stem, ()))
        if result.text != text:
            write(path, result.text, encoding)
        return Examined(name, result.left, "", text, result.text, result.fixed)
    except UnreadableError as error:
        return Examined(name, error=str(error))
    except cst.ParserSyntaxError as error:
        return Examined(name, error=f"{name}:{error.raw_line}: does not parse as Python")
    except RecursionError:
        return Examined(name, error=f"{name}: nested too deeply to examine")
    except OSError as error:
        return Examined(name, error=f"{name}: cannot be written: {error.strerror}")
    except Exception as error:  # a fault of the doctor must not cost the other files their results
        what = " ".join(f"{type(error).__name__}: {error}".split())
        return Examined(name, error=f"{name}: the doctor failed and left the file as it was ({what}): please report it")
