"""What a user names: module:function or file.py:function, imported with what lies beside it; a folder to write to."""

from __future__ import annotations

import difflib
import errno
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from softdraw.errors import InputError


@contextmanager
def own_errors(problem: str) -> Iterator[None]:
    """An error in the user's code shows its own traceback; one that refuses its input is one line."""
    from softdraw.diagnosis.failure import users_part

    try:
        yield
    except InputError:
        raise
    except Exception as error:
        trace = users_part(error.__traceback__)
        if trace is not None:
            traceback.print_exception(type(error), error, trace)
            raise InputError(f"{problem} raised {type(error).__name__}: see its traceback above") from error
        if isinstance(error, (TypeError, ValueError)):
            raise InputError(f"{problem}: {error}") from error
        raise


@contextmanager
def importable(problem: str, example: str) -> Iterator[ModuleType]:
    """The module or file that is named; what lies beside it can be imported while its functions run."""
    place, colon, name = problem.rpartition(":")
    if not colon or not place or not name:
        raise InputError(
            f"{problem!r} does not name a function: write module:function or path/to/file.py:function, "
            f"such as mymodule:{example}"
        )
    is_file = place.endswith(".py") or os.sep in place
    if is_file and not os.path.isfile(place):
        raise InputError(f"there is no file {place}")
    folder = os.path.dirname(os.path.abspath(place)) if is_file else os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield _run_file(place) if is_file else _import(place)
    finally:
        sys.path.remove(folder)


def _run_file(path: str) -> ModuleType:
    stem = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(f"softdraw_problem_{stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look there
    spec.loader.exec_module(module)
    return module


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise  # the module is there, and one that it imports is not
        hint = f": for a file write {name}.py:function" if os.path.isfile(f"{name}.py") else ""
        raise InputError(f"there is no module {error.name}: run where it can be imported{hint}") from error


def named(problem: str, module: ModuleType) -> Any:
    """What the module has under the name, or an error says which name is near."""
    place, _, name = problem.rpartition(":")
    if not hasattr(module, name):
        close = difflib.get_close_matches(name, [x for x in vars(module) if not x.startswith("_")], n=1)
        raise InputError(f"{place} has no {name}" + (f": did you mean {place}:{close[0]}?" if close else ""))
    return getattr(module, name)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """A file or folder that cannot be written is a bad --out."""
    try:
        yield
    except OSError as error:
        name = f": {Path(error.filename).name}" if error.filename and Path(error.filename) != out else ""
        raise InputError(
            f"--out {out}{name} cannot be written ({error.strerror}): "
            + ("free some space, or " if error.errno == errno.ENOSPC else "")
            + "give another folder"
        ) from None
