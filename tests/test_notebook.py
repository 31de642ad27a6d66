"""The example notebook runs from its first cell to its last, and what it shows is what a notebook can show."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from softdraw.diagnosis import Report

NOTEBOOK = Path(__file__).parents[1] / "examples" / "diagnose.ipynb"


def shown(code: str, names: dict[str, Any]) -> Any:
    """Runs a cell; the value of its last expression, which a notebook shows."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    return eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names) if last else None  # pyright: ignore


@pytest.fixture(scope="module")
def results() -> list[Any]:
    names: dict[str, Any] = {}
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return [shown("".join(cell["source"]), names) for cell in cells if cell["cell_type"] == "code"]


def test_the_notebook_runs_and_the_recommended_rule_trains_better(results):
    report, best_and_worst = results[1], results[-1]
    assert list(best_and_worst) == [report.ranked()[0].name, report.ranked()[-1].name]
    best, worst = best_and_worst.values()
    assert best <= worst


def test_a_report_is_a_table_in_a_notebook(results):
    report = results[1]
    assert isinstance(report, Report)
    html = report._repr_html_()
    assert html.count("<tr") == len(report.rules) + 1
    assert report.advice.split(",")[1].split(" has")[0].strip() in html


def test_a_picture_is_a_png_in_a_notebook(results):
    picture = results[2]
    png = picture._repr_png_()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))
    assert (width, height) == (900, 500)  # inches times 100 dots
