"""Findings as text, JSON, GitHub annotations, SARIF; repairs as a unified diff."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Callable, Sequence

from softdraw import __version__
from softdraw.doctor.checks import CHECKS
from softdraw.doctor.finding import Finding

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
    """``path:line:column CODE message``, an empty line between files."""
    groups = itertools.groupby(findings, key=lambda f: f.path)
    lines = ("\n".join(f"{f.path}:{f.line}:{f.column} {f.code} {described(f)}" for f in group) for _, group in groups)
    return "\n\n".join(lines)


def as_json(findings: Sequence[Finding]) -> str:
    rows = [
        {
            "path": f.path,
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
        f"::warning file={_escaped(f.path, ',:')},line={f.line},col={f.column},title={f.code}::{_escaped(described(f))}"
        for f in findings
    )


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
            "message": {"text": described(f)},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": f.path.replace("\\", "/")},
                        "region": {"startLine": f.line, "startColumn": f.column},
                    }
                }
            ],
        }
        for f in findings
    ]
    driver = {"name": "softdraw doctor", "version": __version__, "rules": rules}
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    log = {"$schema": schema, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}
    return json.dumps(log, indent=2, ensure_ascii=False)


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
