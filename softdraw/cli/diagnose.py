"""``softdraw diagnose``: which rule, which tau, on your own objective."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Annotated, Any

import typer

from softdraw.errors import InputError


def diagnose(
    problem: Annotated[
        str,
        typer.Argument(help="module:function or path/to/file.py:function; it returns (f, law) or (f, law, rules)."),
    ],
    rules: Annotated[str, typer.Option(help="Rules, as st,zgr,reinmax:tau=1.1; default: common ones that fit.")] = "",
    samples: Annotated[int, typer.Option(help="Gradient estimates a rule, at least 50.")] = 2000,
    seed: Annotated[int, typer.Option(help="Makes the figures reproducible.")] = 0,
    budget: Annotated[float, typer.Option(help="Seconds.")] = 60.0,
    picture: Annotated[str, typer.Option(help="Write the bias-variance picture to this file.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Bias, variance and cost of gradient rules on your own objective, and which one to take."""
    from softdraw.diagnosis import diagnose as measure

    named = _rules(rules)
    _check(samples, budget, picture)
    with _own_errors(problem), _importable(problem) as module:
        f, law, *own = _made(problem, module)
        report = measure(
            f, law, named or (own[0] if own else None), samples, seed=seed, time_budget=budget, progress=True
        )
    print(json.dumps(report.to_dict(), indent=2) if as_json else report)
    if picture:
        try:
            report.plot(picture)
        except OSError as error:
            raise InputError(f"--picture {picture}: {error.strerror or error}") from error
        print(f"Picture: {picture}", file=sys.stderr if as_json else sys.stdout)


def _rules(words: str) -> list[Any] | None:
    from softdraw.rules.spelling import parse_rules

    try:
        return parse_rules(words) if words else None
    except InputError as error:
        raise InputError(f"--rules: {error}") from error


def _check(samples: int, budget: float, picture: str) -> None:
    """Refuse what would fail only after a minute of measuring."""
    if samples < 50:
        raise InputError(f"--samples {samples}: diagnose needs samples >= 50 for its error bars")
    if not budget > 0:
        raise InputError(f"--budget {budget:g}: it must be above 0 seconds")
    if picture:
        from softdraw.diagnosis.picture import check_path

        try:
            check_path(picture)
        except (OSError, ValueError) as error:
            raise InputError(f"--picture {picture}: {error}") from error


@contextmanager
def _own_errors(problem: str) -> Iterator[None]:
    """An error in the user's code shows its own traceback; one that refuses what it gave is one line."""
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
def _importable(problem: str) -> Iterator[ModuleType]:
    """The module or file that is named; what lies beside it can be imported while its functions run."""
    place, colon, name = problem.rpartition(":")
    if not colon or not place or not name:
        raise InputError(
            f"{problem!r} does not name a function: write module:function or path/to/file.py:function, "
            "such as mymodule:make_problem"
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


def _made(problem: str, module: ModuleType) -> tuple[Any, ...]:
    """What the named function returns."""
    place, _, name = problem.rpartition(":")
    if not hasattr(module, name):
        close = difflib.get_close_matches(name, [x for x in vars(module) if not x.startswith("_")], n=1)
        raise InputError(f"{place} has no {name}" + (f": did you mean {place}:{close[0]}?" if close else ""))
    make = getattr(module, name)
    made = make() if callable(make) else make
    if not isinstance(made, tuple) or len(made) not in (2, 3):
        raise InputError(f"{problem} must return (f, law) or (f, law, rules), got {type(made).__name__}")
    return made
