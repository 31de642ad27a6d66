"""``softdraw diagnose``: which rule, which tau, on your own objective."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import Annotated, Any

import typer

from softdraw.cli.places import importable, named, own_errors
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

    chosen = _rules(rules)
    _check(samples, budget, picture)
    with own_errors(problem), importable(problem, "make_problem") as module:
        f, law, *own = _made(problem, module)
        report = measure(
            f, law, chosen or (own[0] if own else None), samples, seed=seed, time_budget=budget, progress=True
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


def _made(problem: str, module: ModuleType) -> tuple[Any, ...]:
    """What the named function returns."""
    make = named(problem, module)
    made = make() if callable(make) else make
    if not isinstance(made, tuple) or len(made) not in (2, 3):
        raise InputError(f"{problem} must return (f, law) or (f, law, rules), got {type(made).__name__}")
    return made
