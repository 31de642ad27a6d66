"""How rules are spelt on a command line: ``reinmax:tau=1.1``, ``gumbel-rao:tau=0.5:samples=20``, ``st``."""

from __future__ import annotations

import difflib
import re
from dataclasses import MISSING, fields
from typing import Any

from softdraw import rules
from softdraw.errors import InputError
from softdraw.rules.needs import Need
from softdraw.rules.score_function import ScoreFunction


def parse_rules(text: str) -> list[Any]:
    """Rules separated by commas."""
    return [parse_rule(word) for word in text.split(",")]


def parse_rule(text: str) -> Any:
    """A rule from its class's name, in any case and with or without hyphens, or its capitals; ``:name=number`` each.

    Raises:
        InputError: there is no such rule, or it has no such hyper-parameter, or not with that value.
    """
    return parse_words(text)[0]


def parse_words(text: str, kind: type = object) -> tuple[Any, set[str]]:
    """A rule of this kind, and the hyper-parameters that the words give; the others have their defaults."""
    name, *settings = text.strip().split(":")
    rule = _class(name, kind)
    given: dict[str, int | float] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in {f.name for f in fields(rule)}:
            near = difflib.get_close_matches(key, [f.name for f in fields(rule)], 1)
            hint = f"did you mean {near[0]}=? " if near else ""
            raise InputError(f"{text!r}: {rule.__name__} has no {key!r}: {hint}{_takes(rule)}")
        if key in given:
            raise InputError(f"{text!r} gives {key} twice: leave one out")
        given[key] = _number(f"{text!r} does not make a {rule.__name__}", key, value)
    needed = [f.name for f in fields(rule) if f.default is MISSING]
    if needed:
        raise InputError(f"{rule.__name__} needs {' and '.join(needed)}, not a number: use it from Python")
    try:
        return rule(**given), set(given)
    except (TypeError, ValueError) as error:
        raise InputError(f"{text!r} does not make a {rule.__name__} ({error}): {_takes(rule)}") from error


def _class(name: str, kind: type) -> type[Any]:
    """The class that is called ``name``, if it is of this kind."""
    everything = sorted((getattr(rules, n) for n in rules.__all__), key=_is_of_items)  # these last
    classes = [c for c in everything if issubclass(c, kind) and (kind is object or not _is_of_items(c))]
    word = name.replace("-", "").replace("_", "").lower()
    found = [c for c in classes if word in _names(c)]
    if len(found) == 1:
        return found[0]
    start = f"there is no {'rule' if kind is object else f'{kind.__name__.lower()} rule'} {name!r}: "
    if found:
        raise InputError(f"{name!r} is short for {' and '.join(c.__name__ for c in found)}: write more of it")
    elsewhere = [c.__name__ for c in everything if word in _names(c) and issubclass(c, ScoreFunction)]
    if elsewhere:
        raise InputError(
            f"{start}{elsewhere[0]} is a score-function rule, for softdraw.expect and softdraw diagnose: choose from "
            + ", ".join(c.__name__ for c in classes)
        )
    of_items = [c.__name__ for c in everything if word in _names(c) and _is_of_items(c)]
    if of_items:
        raise InputError(
            f"{start}{of_items[0]} is a rule for k of n items, for softdraw.draw(softdraw.Subset(...)): choose from "
            + ", ".join(c.__name__ for c in classes)
        )
    near = difflib.get_close_matches(word, [n for c in classes for n in _names(c)], 1)
    hint = next((f"did you mean {_spelt(c)}? " for c in classes if near and near[0] in _names(c)), "")
    raise InputError(f"{start}{hint}choose from {', '.join(c.__name__ for c in classes)}")


def _is_of_items(rule: type[Any]) -> bool:
    """Whether a rule serves laws of k of n items alone, which no command draws from by itself."""
    return rule.needs is Need.ITEMS


def _names(rule: type) -> tuple[str, str]:
    """The name and its capitals, in small letters."""
    return rule.__name__.lower(), "".join(x for x in rule.__name__ if x.isupper()).lower()


def _spelt(rule: type) -> str:
    """``GumbelSoftmax`` as it is usually typed, ``gumbel-softmax``; ReinMax is one word."""
    return re.sub(r"(?<=[a-z])(?<!Rein)(?=[A-Z][a-z])", "-", rule.__name__).lower()


def _takes(rule: type[Any]) -> str:
    names = sorted(f.name for f in fields(rule))
    return f"it takes {', '.join(f'{name}=' for name in names) or 'nothing'}"


def _number(where: str, key: str, value: str) -> int | float:
    try:
        return int(value) if value.lstrip("-").isdigit() else float(value)
    except ValueError:
        raise InputError(f"{where}: {key} must be a number, got {value!r}: for example, write {key}=1") from None
