"""Examine one file's text, and repair it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import libcst as cst

from softdraw_doctor.finding import Check, Edit, Finding
from softdraw_doctor.glance import Glance, parsed
from softdraw_doctor.imports import without_unused_imports
from softdraw_doctor.operations import Program
from softdraw_doctor.rewrite import applied
from softdraw_doctor.source import LINE_END

_NOQA = re.compile(r"#\s*noqa(?::\s*(?P<codes>[A-Z]+\d+(?:[,\s]+[A-Z]+\d+)*))?", re.IGNORECASE)
_ROUNDS = 20  # of repair; nested findings need one each


@dataclass(frozen=True)
class Repair:
    """A repaired text, how many findings were repaired, and what is left."""

    text: str
    fixed: int
    left: tuple[Finding, ...]


def relevant(text: str, checks: Iterable[Check]) -> list[Check]:
    """The checks that may find something in the text: only a shortcut, apart from one rule.

    A file that never names torch is not examined, for ``x.log()`` in it is likely to be another library's. Raises
    libcst.ParserSyntaxError where a text that names torch is not Python.
    """
    if not names_torch(text):
        return []
    lowered = text.lower()
    tree = parsed(text)
    if tree is None:  # LibCST may know the syntax of a newer Python
        cst.parse_module(text)
        return list(checks)
    checks = [c for c in checks if all(any(word.lower() in lowered for word in group) for group in c.needs)]
    if not checks:
        return []
    glance = Glance(tree)
    return [check for check in checks if check.possible(glance)]


def names_torch(text: str) -> bool:
    return "torch" in text


def examine(text: str, path: str, checks: Iterable[Check]) -> list[Finding]:
    """The findings in a file's text, in its order, without what ``noqa`` comments silence.

    Raises libcst.ParserSyntaxError where the text names torch and is not Python.
    """
    checks = relevant(text, checks)
    return _examined(Program(text, path), checks) if checks else []


def repair(text: str, path: str, checks: Sequence[Check], unsafe: bool = False, keep: Collection[str] = ()) -> Repair:
    """Rewrite what is safe, and with ``unsafe`` what may change results, until nothing is left to rewrite.

    ``keep`` are the names that other files import from this one, so their imports stay.
    """
    fixed = 0
    for _ in range(_ROUNDS):
        groups = [f.edits for f in examine(text, path, checks) if f.edits and (unsafe or not f.unsafe)]
        if not groups:
            break
        text, count = rewritten(text, path, groups, keep)
        if not count:
            break
        fixed += count
    return Repair(text, fixed, tuple(examine(text, path, checks)))


def rewritten(text: str, path: str, groups: Iterable[tuple[Edit, ...]], keep: Collection[str] = ()) -> tuple[str, int]:
    """The text with every group of edits that overlaps no earlier one, and how many groups those were.

    Imports that this leaves unused are deleted, but those of the names in ``keep``.
    """
    before = Program(text, path)
    data, count = applied(before.data, groups)
    try:
        after = Program(data.decode(), path)
    except cst.ParserSyntaxError:
        raise AssertionError("the rewritten text would not parse") from None
    data, _ = applied(after.data, [without_unused_imports(before, after, keep)])
    return data.decode(), count


def _examined(program: Program, checks: Iterable[Check]) -> list[Finding]:
    findings = [finding for check in checks for finding in check.run(program)]
    lines = LINE_END.split(program.text)
    kept = [f for f in findings if not _silenced(program, f, lines[f.line - 1])]
    return sorted(kept, key=lambda f: (f.line, f.column, f.code))


def _silenced(program: Program, finding: Finding, line: str) -> bool:
    if _NOQA.search(line) is None:
        return False
    match = _NOQA.search(program.comment(finding.line))  # the line may have the words in a string
    return match is not None and (match["codes"] is None or finding.code in re.split(r"[,\s]+", match["codes"].upper()))
