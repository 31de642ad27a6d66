"""Findings as text, JSON, GitHub annotations, SARIF; repairs as a unified diff."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Callable, Sequence

from softdraw_doctor import __version__
from softdraw_doctor.checks import CHECKS
from softdraw_doctor.finding import Finding

_EXPLANATIONS = {check.code: check.explanation for check in CHECKS}


def described(finding: Finding) -> str:
    """The message, whether it is only likely, and how it can be repaired."""
    likely = "likely: " if finding.likely else ""
    if finding.edits:
        why = f", but {finding.reason}" if finding.reason else ""
        way = f" (--fix --unsafe-fixes rewrites it{why})" if finding.unsafe else " (--fix rewrites it)"
    else:
        way = f" (not rewritten: {finding.reason})" if finding.reason else ""
    return f"{likely}{finding.message}{way}"


def text(findings: Sequence[Finding]) -> str:
    """``place CODE message``, an empty line between files."""
    groups = itertools.groupby(findings, key=lambda f: f.path)
    lines = ("\n".join(f"{f.place} {f.code} {described(f)}" for f in group) for _, group in groups)
    return "\n\n".join(lines)


def as_json(findings: Sequence[Finding]) -> str:
    rows = [
        {
            "path": f.path,
            **({"cell": f.cell} if f.cell else {}),
            "line": f.line,
            "column": f.column,
            "code": f.code,
            "message": described(f),
            "fixable": f.fixable,
            "explanation": _EXPLANATIONS[f.code],
        }
        for f in findings
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False)


def github(findings: Sequence[Finding]) -> str:
    """Workflow commands that GitHub shows at the lines of a pull request."""
    return "\n".join(
        f"::warning file={_escaped(f.path, ',:')}{_at(f)},title={f.code}::{_escaped(_in_cell(f) + described(f))}"
        for f in findings
    )


def _at(finding: Finding) -> str:
    """The line, which the lines of a notebook's file are not."""
    return "" if finding.cell else f",line={finding.line},col={finding.column}"


def _in_cell(finding: Finding) -> str:
    return f"cell {finding.cell}, line {finding.line}: " if finding.cell else ""


def _escaped(value: str, also: str = "") -> str:
    return "".join(f"%{ord(c):02X}" if c in "%\r\n" + also else c for c in value)


def sarif(findings: Sequence[Finding]) -> str:
    """SARIF 2.1.0, for code scanning."""
    rules = [
        {
            "id": check.code,
            "name": type(check).__name__,
            "shortDescription": {"text": check.explanation.partition("\n")[0]},
            "fullDescription": {"text": check.explanation},
        }
        for check in CHECKS
    ]
    results = [
        {
            "ruleId": f.code,
            "level": "note" if f.likely else "warning",
            "message": {"text": _in_cell(f) + described(f)},
            "locations": [{"physicalLocation": _physical(f)}],
        }
        for f in findings
    ]
    driver = {"name": "softdraw-doctor", "version": __version__, "rules": rules}
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    log = {"$schema": schema, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}
    return json.dumps(log, indent=2, ensure_ascii=False)


def _physical(finding: Finding) -> dict[str, object]:
    place: dict[str, object] = {"artifactLocation": {"uri": finding.path.replace("\\", "/")}}
    if not finding.cell:
        place["region"] = {"startLine": finding.line, "startColumn": finding.column}
    return place


def diff(path: str, old: str, new: str) -> str:
    """The repair as a unified diff."""
    before, after = (t.replace("\r\n", "\n").splitlines() for t in (old, new))
    return "\n".join(difflib.unified_diff(before, after, path, path, lineterm=""))


FORMATS: dict[str, Callable[[Sequence[Finding]], str]] = {
    "text": text,
    "json": as_json,
    "github": github,
    "sarif": sarif,
}
