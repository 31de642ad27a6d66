"""Examine one file's text, and repair it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from softdraw.doctor.finding import Check, Finding
from softdraw.doctor.operations import Program
from softdraw.doctor.rewrite import applied, without_unused_imports
from softdraw.doctor.source import LINE_END

_NOQA = re.compile(r"#\s*noqa(?::\s*(?P<codes>[A-Z]+\d+(?:[,\s]+[A-Z]+\d+)*))?", re.IGNORECASE)
_ROUNDS = 20  # of repair; nested findings need one each


@dataclass(frozen=True)
class Repair:
    """A repaired text, how many findings that took, and what is left."""

    text: str
    fixed: int
    left: tuple[Finding, ...]


def relevant(text: str, checks: Iterable[Check]) -> list[Check]:
    """The checks that the text gives a reason to run: a file that never names torch gives none."""
    if "torch" not in text:
        return []
    return [check for check in checks if all(re.search(need, text) for need in check.needs)]


def examine(text: str, path: str, checks: Iterable[Check]) -> list[Finding]:
    """The findings in a file's text, in its order, without what ``noqa`` comments silence.

    Raises libcst.ParserSyntaxError where the text is not Python.
    """
    checks = relevant(text, checks)
    if not checks or not _examined(Program(text, path, _focus(checks)), checks):
        return []
    return _examined(Program(text, path), checks)


def _focus(checks: Iterable[Check]) -> str:
    """What a definition has to mention for one of the checks to care: any of the things that they need."""
    return "|".join(f"(?i:{need.removeprefix('(?i)')})" for check in checks for need in check.needs)


def repair(text: str, path: str, checks: Sequence[Check], unsafe: bool = False) -> Repair:
    """Rewrite what is safe, and with ``unsafe`` what changes results on purpose, until nothing is left to rewrite."""
    fixed = 0
    chosen = relevant(text, checks)
    if not chosen:
        return Repair(text, 0, ())
    if not examine(text, path, chosen):
        return Repair(text, 0, ())
    program = Program(text, path)
    findings = _examined(program, chosen)
    for _ in range(_ROUNDS):
        groups = [f.edits for f in findings if f.edits and (unsafe or not f.unsafe)]
        data, count = applied(program.data, groups)
        if not count:
            break
        after = Program(data.decode(), path)
        data, _ = applied(after.data, [without_unused_imports(program, after)])
        program = Program(data.decode(), path)
        findings, before = _examined(program, chosen), len(findings)
        fixed += before - len(findings)
    return Repair(program.text, fixed, tuple(findings))


def _examined(program: Program, checks: Iterable[Check]) -> list[Finding]:
    findings = [finding for check in checks for finding in check.run(program)]
    lines = LINE_END.split(program.text)
    kept = [f for f in findings if not _silenced(f, lines[f.line - 1])]
    return sorted(kept, key=lambda f: (f.line, f.column, f.code))


def _silenced(finding: Finding, line: str) -> bool:
    match = _NOQA.search(line)
    return match is not None and (match["codes"] is None or finding.code in re.split(r"[,\s]+", match["codes"].upper()))
