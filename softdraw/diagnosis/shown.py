"""A report as text of 80 columns and as a table of a notebook."""

from __future__ import annotations

import math
import textwrap
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from softdraw.diagnosis.report import Measured, Report

_HEADER: tuple[str, ...] = ("rule", "f", "bias", "variance", "cosine", "error", "ms", "kB")
_NAME, _WIDTH = 23, 80


def text(report: Report) -> str:
    """Explanation, table, notes and advice."""
    lines = [_cells(report, r) for r in report.rules]
    widths = [max(map(len, column)) for column in zip(_HEADER[1:], *(cells[1:] for cells in lines), strict=True)]
    table = [row for cells in (list(_HEADER), *lines) for row in _rows(cells, widths)]
    table.insert(1, "-" * len(table[0]))
    words = [_truth(report), *explanation(report)]
    return "\n".join([*_wrapped(words), "", *table, "", *_wrapped([*report.notes, report.advice])])


def html(report: Report) -> str:
    """The same as a table of HTML, the best rule in bold."""
    best = report.ranked()[0]
    head = "".join(f"<th>{escape(x)}</th>" for x in _HEADER)
    body = ""
    for r in report.rules:
        tag = "b" if r is best else "span"
        cells = (f"<td><{tag}>{escape(x)}</{tag}></td>" for x in _cells(report, r))
        body += f"<tr>{''.join(cells)}</tr>"
    before = "".join(f"<p>{escape(x)}</p>" for x in (_truth(report), *explanation(report)))
    after = "".join(f"<p>{escape(x)}</p>" for x in (*report.notes, report.advice))
    return f"<div>{before}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{after}</div>"


def short(x: float, digits: int = 2) -> str:
    """A number of few digits: 160, not 1.6e+02."""
    return f"{float(f'{x:.{digits}g}'):g}"


def explanation(report: Report) -> list[str]:
    """What the columns are, and of how many estimates."""
    draws = {r.draws for r in report.rules}
    counts = str(*draws) if len(draws) == 1 else ", ".join(f"{r.draws} of {r.name}" for r in report.rules)
    return [
        "f: its evaluations for one estimate of the gradient. bias, variance: of one estimate, relative to the true "
        f"gradient, with 95 % intervals (estimates: {counts}). ms, kB: time, and memory for the backward pass.",
        f"error: at equal cost, of the mean of the estimates that {report.evaluations} evaluations of f allow.",
    ]


def _truth(report: Report) -> str:
    return f"True gradient: {report.truth}; length {report.norm:.4g}."


def _cells(report: Report, r: Measured) -> list[str]:
    bias = f"< {short(r.bias.high)}" if r.unbiased else f"{short(r.bias.value)} ± {short(r.bias.half, 1)}"
    error = 100 * math.sqrt(r.error(report.evaluations))
    return [
        r.name,
        str(r.evaluations),
        bias,
        f"{short(r.variance.value, 3)} ± {short(r.variance.half, 1)}",
        f"{r.cosine.value:.2f}",
        f"{short(error)} %" if error < math.inf else "-",
        f"{r.milliseconds:.2g}" if r.milliseconds < 10 else f"{r.milliseconds:.0f}",
        f"{r.bytes / 1000:.1f}" if r.bytes < 1e5 else f"{r.bytes / 1000:.0f}",
    ]


def _rows(cells: list[str], widths: list[int]) -> list[str]:
    """A row of the table; a long name continues on the next line."""
    name, more = cells[0], []
    if len(name) > _NAME:
        name, _, numbers = name.partition("(")
        more = textwrap.wrap(f"({numbers}", _NAME, initial_indent="  ", subsequent_indent="   ")
    first = "  ".join([name.ljust(_NAME), *(c.rjust(w) for c, w in zip(cells[1:], widths, strict=True))])
    return [first, *more]


def _wrapped(paragraphs: list[str]) -> list[str]:
    return [line for words in paragraphs for line in textwrap.wrap(words, _WIDTH, break_long_words=False)]
