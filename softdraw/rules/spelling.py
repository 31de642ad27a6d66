"""Rules as words on a command line: ``reinmax:tau=1.1``, ``gumbel-rao:tau=.5:samples=20``, ``st``."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from softdraw import rules
from softdraw.errors import InputError


def parse_rules(text: str) -> list[Any]:
    """Rules separated by commas."""
    return [parse_rule(word) for word in text.split(",")]


def parse_rule(text: str) -> Any:
    """A rule from its class's name, in any case and with or without hyphens, or its capitals; ``:name=number`` each."""
    return parse_words(text)[0]


def parse_words(text: str, kind: type = object) -> tuple[Any, set[str]]:
    """A rule of this kind, and the hyper-parameters that the words give; the others have their defaults."""
    name, *settings = text.strip().split(":")
    word = name.replace("-", "").replace("_", "").lower()
    classes = [c for c in (getattr(rules, n) for n in rules.__all__) if issubclass(c, kind)]
    found = [c for c in classes if word in (c.__name__.lower(), "".join(x for x in c.__name__ if x.isupper()).lower())]
    if len(found) != 1:
        noun = "rule" if kind is object else f"{kind.__name__.lower()} rule"
        raise InputError(f"there is no {noun} {name!r}: choose from {', '.join(c.__name__ for c in classes)}")
    known = {f.name for f in fields(found[0])}
    try:
        given = {key: _number(value) for key, value in (s.split("=") for s in settings)}
        return found[0](**given), set(given)
    except (TypeError, ValueError) as error:
        allowed = ", ".join(f"{key}=" for key in sorted(known)) or "nothing"
        raise InputError(f"{text!r} does not make a {found[0].__name__} ({error}): it takes {allowed}") from error


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdigit() else float(text)
