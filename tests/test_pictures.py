"""The pictures of the documentation: their figures, and that each command writes the files that a page shows."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

import softdraw

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"


@pytest.fixture
def script(monkeypatch):
    """Imports a script of docs/pictures, which finds style.py beside itself."""
    monkeypatch.syspath_prepend(str(PICTURES))
    yield importlib.import_module
    for name in [path.stem for path in PICTURES.glob("*.py")]:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("power", [1.5, 4.0])
def test_the_figures_of_a_rule(script, power):
    """Beside the enumeration of every draw: bias to the noise that is left, spread to its own."""
    rules = script("rules")
    f = rules.objective(power)
    rule, logits = softdraw.ZGR(), rules.LOGITS
    p, means, squares = logits.softmax(-1), torch.zeros(8), torch.zeros(())
    for k in range(8):
        theta = logits.clone().requires_grad_()
        f(softdraw.draw(theta, rule, value=torch.eye(8)[k])).backward()
        means, squares = means + p[k] * theta.grad, squares + p[k] * theta.grad.square().sum()
    truth = rules.truth(f)
    bias, spread = rules.figures(f, rule)
    assert bias == pytest.approx(((means - truth).norm() / truth.norm()).item(), abs=0.03)
    assert spread == pytest.approx(((squares - means.square().sum()).sqrt() / truth.norm()).item(), rel=0.02)


@pytest.mark.parametrize("power", [1.5, 4.0])
def test_the_figures_of_the_score_function_rule(script, power):
    """Four evaluations of f cost four: the spread is that of one estimate, twice."""
    rules = script("rules")
    f = rules.objective(power)
    _, spread = rules.leave_one_out(f)
    theta = rules.LOGITS.expand(5000, -1).clone().requires_grad_()
    law = softdraw.OneHotCategorical(theta)
    softdraw.expect(f, law, softdraw.LeaveOneOut(4), seed=1).sum().backward()
    alone = (theta.grad.var(0).sum().sqrt() / rules.truth(f).norm()).item()
    assert spread == pytest.approx(2 * alone, rel=0.05)


def test_speeds_are_those_of_the_benchmark_page(script):
    found = script("speed").ratios(threads=2)
    page = (ROOT / "benchmarks" / "README.md").read_text()
    page = page[: page.index("bfloat16, from")]
    rows = re.findall(r"^\| (\S+) \| (\d+)x(\d+) \| 2 \|.*\| ([\d.]+) \| ([\d.]+) \|$", page, re.MULTILINE)
    listed = {(operation, int(r), int(c)): (eager, compiled) for operation, r, c, eager, compiled in rows}
    for (r, c), by_operation in found.items():
        assert len(by_operation) == 4
        for operation, ratios in by_operation.items():
            assert tuple(f"{ratios[peer]:.1f}" for peer in ("eager", "compiled")) == listed[operation, r, c]


@pytest.mark.parametrize("name", ["draws", "rules", "speed", "precision"])
def test_a_command_writes_both_versions(script, monkeypatch, tmp_path, name):
    module = script(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", str(tmp_path)])
    measured = {1.5: {"ReinMax": ("#000000", [(0.1, 2.0), (0.2, 1.0)], (1.0, 2.0))}}
    make = (lambda: module.make(measured)) if name == "rules" else module.make
    script("style").write(name, "png" if name == "draws" else "svg", make)
    written = {path.name for path in tmp_path.iterdir()}
    page = ROOT / "docs" / ("precision.md" if name == "precision" else "pictures.md")
    shown = set(re.findall(rf"images/({name}-\w+\.\w+)#only-(?:light|dark)", page.read_text()))
    assert written == shown
    light, dark = (path.read_bytes() for path in sorted(tmp_path.iterdir(), reverse=True))
    assert light != dark
