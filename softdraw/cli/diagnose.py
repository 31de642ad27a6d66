"""``softdraw diagnose``: which rule, which tau, on your own objective."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated, Any

import typer


def diagnose(
    problem: Annotated[str, typer.Argument(help="module:function; the function returns (f, law) or (f, law, rules).")],
    rules: Annotated[str, typer.Option(help="Rules, as st,zgr,reinmax:tau=1.1; default: seven common ones.")] = "",
    samples: Annotated[int, typer.Option(help="Gradient estimates a rule.")] = 2000,
    seed: Annotated[int, typer.Option(help="Makes the figures reproducible.")] = 0,
    budget: Annotated[float, typer.Option(help="Seconds.")] = 60.0,
    picture: Annotated[str, typer.Option(help="Write the bias-variance picture to this file.")] = "",
) -> None:
    """Bias, variance and cost of gradient rules on your own objective, and which one to take."""
    from softdraw.diagnosis import RULES
    from softdraw.diagnosis import diagnose as measure
    from softdraw.errors import InputError
    from softdraw.rules.spelling import parse_rules

    f, law, *own = _load(problem)
    chosen = parse_rules(rules) if rules else own[0] if own else RULES
    if picture and not os.path.isdir(os.path.dirname(picture) or "."):
        raise InputError(f"--picture {picture}: there is no folder {os.path.dirname(picture)}")
    try:
        report = measure(f, law, chosen, samples, seed=seed, time_budget=budget, progress=True)
    except (TypeError, ValueError) as error:
        raise InputError(f"{problem}: {error}") from error
    print(report)
    if picture:
        report.plot(picture)
        print(f"Picture: {picture}")


def _load(problem: str) -> tuple[Any, ...]:
    """What the named function returns; modules are found from the working folder too."""
    from softdraw.errors import InputError

    module, _, name = problem.partition(":")
    if not module or not name:
        raise InputError(f"{problem!r} does not name a function: write module:function, such as mymodule:make_problem")
    sys.path.insert(0, os.getcwd())
    try:
        make = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise InputError(f"there is no module {error.name}: run where it can be imported") from error
    except AttributeError as error:
        raise InputError(f"{module} has no {name}") from error
    finally:
        sys.path.pop(0)
    made = make() if callable(make) else make
    if not isinstance(made, tuple) or len(made) not in (2, 3):
        raise InputError(f"{problem} must return (f, law) or (f, law, rules), got {type(made).__name__}")
    return made
