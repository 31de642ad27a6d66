"""The report of diagnose: the ranking at equal cost, the advice, and the forms that it is read in."""

import json
import math
from xml.etree import ElementTree

import pytest
import torch
from torch.distributions import Independent

import softdraw
from softdraw.diagnosis import Interval, Measured, Report
from softdraw.reproduce import bias_variance
from softdraw.rules.score_function import ScoreFunction
from tests.methods import one_hot_logits

RULES = [softdraw.StraightThrough(), softdraw.ZGR(), softdraw.ReinMax(2.0), softdraw.LeaveOneOut(4)]
F, LOGITS = bias_variance.problem(4)
LAW = softdraw.OneHotCategorical(LOGITS)


def at_equal_cost(r, evaluations):
    """Squared relative error of the mean of as many estimates as there are evaluations of f for."""
    bias = 0.0 if isinstance(r.rule, ScoreFunction) else r.bias.value
    return bias**2 + r.variance.value * r.evaluations / evaluations if r.evaluations <= evaluations else math.inf


def measured(rule, evaluations, bias, variance, ms=1.0):
    around = [Interval(x, x * 0.9, x * 1.1) for x in (bias, variance, 0.5)]
    return Measured(rule, 1000, evaluations, *around, ms, 100.0)


@pytest.fixture(scope="module")
def report():
    return softdraw.diagnose(F, LAW, RULES, samples=20_000, seed=1)


def test_report_in_words_and_picture(report, tmp_path):
    text = str(report)
    for word in ("StraightThrough(tau=1)", "ReinMax(tau=2)", "LeaveOneOut(samples=4)", "20000", "± "):
        assert word in text
    assert all(len(line) <= 80 for line in text.splitlines())
    best, second, *_ = sorted(report.rules, key=lambda r: at_equal_cost(r, 100))
    assert report.advice.startswith(f"With 100 evaluations of f, {best.name} has the least error, ")
    assert f"; next is {second.name}, " in report.advice
    report.plot(str(tmp_path / "a.png"))
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_rules_are_ranked_at_equal_cost():
    st = measured(softdraw.StraightThrough(), 1, 0.5, 1.0)
    zgr = measured(softdraw.ZGR(), 1, 0.3, 9.0)
    loo = measured(softdraw.LeaveOneOut(4), 4, 0.0, 1.2)  # 4.8 at one evaluation
    table = measured(softdraw.Exact(), 1000, 0.0, 0.0)  # cannot be had for 100 evaluations
    found = Report("exact", 1.0, (st, zgr, loo, table))
    assert found.ranked() == [loo, zgr, st, table]
    assert [r.error(100) for r in found.rules] == pytest.approx([0.26, 0.18, 0.048, math.inf])
    # ST and leave-one-out cross where 0.25 + 1 / n = 4.8 / n, so at n = 15.2; Exact is better from 1,000 on.
    assert "with fewer than about 15, prefer StraightThrough(tau=1)" in found.advice
    assert "with more than about 1000, prefer Exact" in found.advice
    assert found.ranked(10)[0] is st
    assert found.ranked(2000)[0] is table
    only = Report("exact", 1.0, (table,))
    assert only.evaluations == 1000
    assert only.advice.startswith("With 1000 evaluations of f, Exact")
    quick = measured(softdraw.ReinMax(1.0), 1, 0.3, 9.01, ms=0.5)  # no better than ZGR but for its time
    assert Report("exact", 1.0, (zgr, quick)).ranked() == [quick, zgr]


def test_the_advice_is_never_worse_in_every_column_at_equal_evaluations():
    # The old advice took the best of the rules with one evaluation: here GappedStraightThrough, of 5 times the error.
    torch.manual_seed(0)
    w, v = torch.randn(12, 16, dtype=torch.float64), torch.randn(16, dtype=torch.float64)
    law = Independent(softdraw.OneHotCategorical(one_hot_logits(3, 4)), 1)
    found = softdraw.diagnose(lambda y: torch.tanh(y.flatten(-2) @ w) @ v, law, samples=1000)
    best = found.ranked()[0]
    for other in found.rules:
        beaten = [
            other.bias.value < best.bias.low,
            other.variance.high * other.evaluations < best.variance.low * best.evaluations,
        ]
        assert not all(beaten)
    assert best.rule == softdraw.LeaveOneOut(4)
    errors = [at_equal_cost(r, 100) for r in found.rules]
    assert at_equal_cost(best, 100) == pytest.approx(min(errors), rel=0.06)  # ties are of two digits


def test_report_in_a_notebook_and_as_numbers(report):
    assert repr(report) == f"Report(4 rules, best at equal cost: {report.ranked()[0].name}; print it for the table)"
    page = ElementTree.fromstring(report._repr_html_())
    rows = [[cell.text or cell[0].text for cell in row] for row in page.iter("tr")]
    assert [row[0] for row in rows] == ["rule", *(r.name for r in report.rules)]
    assert next(b.text for b in page.iter("b")) == report.ranked()[0].name
    numbers = json.loads(json.dumps(report.to_dict()))
    assert numbers["norm"] == report.norm
    assert numbers["rules"][0]["bias"] == report.rules[0].bias._asdict()
    assert numbers["rules"][3]["error"] == pytest.approx(at_equal_cost(report.rules[3], 100) ** 0.5)
    assert numbers["ranking"] == [r.name for r in report.ranked()]
    dear = Report("exact", 1.0, (report.rules[0], measured(softdraw.Exact(), 1000, 0.0, 0.0)))
    assert json.loads(json.dumps(dear.to_dict(), allow_nan=False))["rules"][1]["error"] is None
    figure = report.plot()
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()][3] == "LeaveOneOut(samples=4), 4"


@pytest.mark.parametrize("f", [lambda y: y.sum(-1) * 0 + 3, lambda y: y.sum(-1), lambda y: y.sum(-1).long()])
def test_a_constant_objective_is_refused(f):
    """Its gradient is rounding alone, to which no error is relative."""
    law = softdraw.OneHotCategorical(torch.tensor([0.3, 0.0, -1.0]))
    with pytest.raises(ValueError, match="the true gradient of E\\[f\\] is zero"):
        softdraw.diagnose(f, law, samples=100)
