"""diagnose against enumerated bias and variance; its truth, its budget, its refusals."""

import math
import subprocess
import sys
import time
import traceback

import pytest
import torch
from torch.distributions import Independent

import softdraw
from softdraw.diagnosis import RULES as RULES_BY_DEFAULT
from softdraw.diagnosis.cost import costs
from softdraw.diagnosis.gradients import Problem
from softdraw.reproduce import bias_variance
from softdraw.rules.score_function import ScoreFunction
from tests.methods import enumerated, one_hot_logits

RULES = [softdraw.StraightThrough(), softdraw.ZGR(), softdraw.ReinMax(2.0), softdraw.LeaveOneOut(4)]
F, LOGITS = bias_variance.problem(4)
LAW = softdraw.OneHotCategorical(LOGITS)


def slope(x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(F(x).sum(), x)[0]


@pytest.fixture(scope="module")
def report():
    return softdraw.diagnose(F, LAW, RULES, samples=20_000, seed=1)


def test_bias_and_variance_are_the_enumerated_ones(report):
    p = LOGITS.softmax(-1)
    values = F(torch.eye(4, dtype=torch.float64))
    truth = p * (values - p @ values)
    assert report.norm == pytest.approx(truth.norm().item())
    assert report.truth == "exact, 4 joint states enumerated"
    for measured, rule in zip(report.rules[:3], RULES, strict=False):
        expected = enumerated(rule, LOGITS, slope)
        bias = ((expected.mean - truth).norm() / truth.norm()).item()
        variance = expected.variance / truth.norm().item() ** 2
        width = measured.variance.high - measured.variance.low
        assert abs(measured.variance.value - variance) < width
        assert width < 0.1 * variance
        assert measured.bias.low - 0.02 < bias < measured.bias.high + 0.02
        assert measured.evaluations == 1
    st, zgr, reinmax, loo = report.rules
    assert not st.unbiased
    assert not reinmax.unbiased
    assert zgr.unbiased
    assert loo.unbiased
    assert loo.evaluations == 4
    assert 0 < zgr.cosine.value < st.cosine.value <= 1


def test_cosine_is_the_enumerated_one(report):
    p = LOGITS.softmax(-1)
    values = F(torch.eye(4, dtype=torch.float64))
    truth = p * (values - p @ values)
    theta, cosines = LOGITS.clone().requires_grad_(), []
    for x in torch.eye(4, dtype=torch.float64):
        y = softdraw.draw(softdraw.OneHotCategorical(theta), softdraw.ZGR(), value=x)
        (g,) = torch.autograd.grad(F(y), theta)
        cosines.append(torch.cosine_similarity(g, truth, dim=0))
    expected = (p * torch.stack(cosines)).sum().item()
    found = report.rules[1].cosine
    assert found.low - 0.005 < expected < found.high + 0.005


def test_the_noise_of_the_mean_is_no_bias():
    # ZGR is exact here; its mean over 200 draws is off by its noise, which must not count: one interval in 40 fails.
    clean = [softdraw.diagnose(F, LAW, [softdraw.ZGR()], samples=200, seed=s).rules[0].unbiased for s in range(16)]
    assert sum(clean) >= 13


def test_the_noise_of_the_reference_is_no_bias():
    # Straight-through on a linear f is exact and without variance: all that is left is the error of the reference.
    law = Independent(softdraw.OneHotCategorical(one_hot_logits(8, 5)), 1)
    w = one_hot_logits(8, 5, seed=1)
    for seed in range(4):
        found = softdraw.diagnose(
            lambda y: (y * w).sum((-1, -2)), law, [softdraw.StraightThrough()], samples=50, seed=seed, exact_limit=1
        )
        assert found.rules[0].variance.value < 1e-13  # float32 roundings, squared
        assert found.rules[0].unbiased


def test_reproducible_by_seed():
    a, b, c = (softdraw.diagnose(F, LAW, RULES[:2], samples=200, seed=s) for s in (1, 1, 2))
    for x, y in zip(a.rules, b.rules, strict=True):
        assert (x.bias, x.variance, x.cosine) == (y.bias, y.variance, y.cosine)
    assert a.rules[1].variance != c.rules[1].variance


def test_where_enumeration_is_out_of_reach():
    # 6^8 joint states of a sum over variables: the truth is known all the same, f being a sum of quadratics.
    logits = one_hot_logits(8, 6)
    law = Independent(softdraw.OneHotCategorical(logits), 1)
    w = one_hot_logits(6, seed=1)
    found = softdraw.diagnose(lambda y: ((y @ w) ** 2).sum(-1), law, RULES[:2], samples=1000, seed=0)
    p = logits.softmax(-1)
    truth = p * (w**2 - (p @ w**2).unsqueeze(-1))
    assert "leave-one-out" in found.truth
    assert found.norm == pytest.approx(truth.norm().item(), rel=0.1)
    st, zgr = found.rules
    linear = 2 * (p @ w).unsqueeze(-1) * p * (w - (p @ w).unsqueeze(-1))  # straight-through's mean
    bias = ((linear - truth).norm() / truth.norm()).item()
    assert st.bias.low < bias < st.bias.high
    assert zgr.unbiased


def test_a_whole_model_is_left_as_it_was():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(12, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    logits = torch.randn(5, 4, 3, requires_grad=True)
    before = [p.clone() for p in net.parameters()]
    found = softdraw.diagnose(
        lambda y: net(y.flatten(-2)).squeeze(-1), Independent(softdraw.OneHotCategorical(logits), 1), RULES, samples=100
    )
    assert found.truth == "exact, 81 joint states enumerated"
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, net.parameters(), strict=True))
    assert logits.grad is None
    assert found.rules[0].bytes > 0


def test_masked_bits_and_black_box():
    law = Independent(softdraw.Bernoulli(one_hot_logits(4), torch.tensor([True, False, True, True])), 1)

    def f(y):
        return y.detach().numpy().sum(-1) ** 2

    rules = [softdraw.DisARM(2), softdraw.LeaveOneOut(4), softdraw.SumAndSample(4)]
    found = softdraw.diagnose(f, law, rules, samples=500)
    assert all(r.unbiased for r in found.rules)
    with pytest.raises(ValueError, match="f gives no gradient at its sample, and ZGR is a pathwise rule"):
        softdraw.diagnose(f, law, [softdraw.ZGR()])


def test_stops_within_its_budget():
    def slow(y):
        time.sleep(0.02)
        return F(y)

    started = time.monotonic()
    found = softdraw.diagnose(slow, LAW, [softdraw.StraightThrough(), softdraw.ZGR()], samples=10**8, time_budget=2.0)
    assert time.monotonic() - started < 10.0  # not the minutes that all samples take; a loaded machine is slow
    assert all(0 < r.draws < 10**8 for r in found.rules)  # how many fit depends on the machine


def test_refusals():
    with pytest.raises(ValueError, match="the true gradient of E"):
        softdraw.diagnose(lambda y: y.sum(-1) * 0 + 1, LAW, RULES)
    with pytest.raises(ValueError, match="samples >= 50"):
        softdraw.diagnose(F, LAW, RULES, samples=3)


def box(y):
    return y.numpy().sum(-1) ** 3


def test_a_black_box_drops_pathwise_rules_and_says_so():
    law = Independent(softdraw.Bernoulli(one_hot_logits(4)), 1)
    for f in (box, lambda y: y.detach().sum(-1) ** 3):
        found = softdraw.diagnose(f, law, samples=500)
        rules = [r.rule for r in found.rules]
        assert softdraw.DisARM(2) in rules
        assert softdraw.LeaveOneOut(4) in rules
        assert all(isinstance(rule, ScoreFunction) for rule in rules)
        assert all(r.unbiased or r.bias.low < 0.02 for r in found.rules)
        assert "f gives no gradient at its sample (a black box), so pathwise rules are left out." in str(found)
    smooth = softdraw.diagnose(lambda y: y.sum(-1) ** 3, law, samples=50)
    assert [r.rule for r in smooth.rules] == [*RULES_BY_DEFAULT, softdraw.DisARM(2)]
    assert not smooth.notes


def test_rules_that_do_not_serve_the_law_are_left_out_of_the_default():
    found = softdraw.diagnose(
        lambda y: (y[..., 0] + y[..., 1] - 0.3) ** 3, softdraw.Subset(one_hot_logits(4), 2), samples=50
    )
    assert [type(r.rule).__name__ for r in found.rules] == ["StraightThrough", "ZGR", "LeaveOneOut"]
    assert found.notes[0].startswith("Left out, because they do not serve Subset: StraightThroughGumbel, GumbelRao")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_objective_that_is_not_finite_is_refused(value):
    law = softdraw.OneHotCategorical(torch.zeros(3))
    for limit, message in ((100, "f must be finite"), (1, rf"f must be finite.*got {value}.*at the sample \[1.0, 0.0")):
        with pytest.raises(ValueError, match=message):
            softdraw.diagnose(lambda y: torch.where(y[..., 0] > 0, value, y[..., 1]), law, exact_limit=limit)
    with pytest.raises(ValueError, match=r"f must have a finite gradient at its samples for StraightThrough"):
        softdraw.diagnose(lambda y: y[..., 0].sqrt() + y[..., 1], law, [softdraw.StraightThrough()])
    with pytest.raises(ValueError, match="law must have finite logits"):
        softdraw.diagnose(lambda y: y[..., 0], softdraw.OneHotCategorical(torch.tensor([0.0, value])))
    masked = softdraw.OneHotCategorical(torch.zeros(3), torch.tensor([False, True, True]))  # value is never met
    found = softdraw.diagnose(
        lambda y: torch.where(y[..., 0] > 0, value, y[..., 1]), masked, [softdraw.LeaveOneOut(2)], samples=50
    )
    assert found.norm == pytest.approx(0.5**1.5)  # p (1 - p) = 1/4 twice


def test_rows_key_the_draws():
    logits, ids = one_hot_logits(6, 3), torch.tensor([5, 0, 7, 2, 9, 1])

    def seen(part, rows):
        samples = []

        def f(y):
            samples.append(y.detach())
            return y[..., 0]

        law = softdraw.OneHotCategorical(logits[part])
        softdraw.diagnose(f, law, [softdraw.ZGR(), softdraw.LeaveOneOut(2)], samples=100, rows=rows)
        return samples[-50:]  # 25 groups of 4 estimates, for each rule

    whole, part = seen(slice(None), ids), seen(slice(2, 4), ids[2:4])
    assert {len(y) for y in whole} == {4, 8}  # one or two samples for each of 4 estimates
    assert all(torch.equal(a[:, 2:4], b) for a, b in zip(whole, part, strict=True))
    assert not all(torch.equal(y[0], y[1]) for y in whole)  # every estimate has draws of its own
    assert torch.equal(seen(slice(2, 4), 2)[-1], seen(slice(2, 4), torch.tensor([2, 3]))[-1])
    with pytest.raises(ValueError, match=r"rows must be below 2\*\*32"):
        seen(slice(2, 4), 2**32)


def test_an_error_of_f_keeps_its_kind_and_shows_the_user_s_frames():
    def f(y):
        return {}["targets"] * y

    with pytest.raises(KeyError, match="targets") as caught:
        softdraw.diagnose(f, LAW)
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames == ["test_an_error_of_f_keeps_its_kind_and_shows_the_user_s_frames", "diagnose", "f"]


def test_the_first_rule_is_timed_as_the_others(monkeypatch):
    waits = iter([0.2] * 6)  # the first calls of a process load and compile: here the two first of every rule

    def f(y):
        time.sleep(next(waits, 0.002))
        return F(y)

    problem = Problem(f, LAW, 0)
    first, *others = costs(problem, [softdraw.ZGR()] * 3, time.monotonic() + 5)
    assert 2.0 < first["milliseconds"] < 100.0  # not 200; a loaded machine is slow
    assert len(others) == 2
    waits = iter([0.1] * 100)
    started = time.monotonic()
    costs(problem, [softdraw.ZGR()], time.monotonic() + 0.05)
    assert time.monotonic() - started < 0.9  # a slow f gets fewer than the 9 calls of a quick one


def test_refused_arguments():
    for words, error, message in (
        ({"rules": softdraw.ZGR()}, TypeError, r"rules must be a list of rules, got ZGR: write \[ZGR"),
        ({"rules": [softdraw.ZGR]}, TypeError, "rules must be gradient rules .* got the class ZGR"),
        ({"rules": []}, ValueError, "rules must name at least one rule"),
        ({"rules": [softdraw.ZGR(), softdraw.DisARM()]}, TypeError, "DisARM does not serve OneHotCategorical"),
        ({"samples": 100.0}, TypeError, "samples must be an int, got float"),
        ({"time_budget": 0}, ValueError, "time_budget must be above 0 seconds, got 0"),
    ):
        with pytest.raises(error, match=message):
            softdraw.diagnose(F, LAW, **words)
    for f, error, message in (
        (lambda y: None, TypeError, "f must return a tensor or numbers, got NoneType"),
        (lambda y: y.sum(), ValueError, r"f must map samples of shape .* got \(\)"),
        (3, TypeError, "f must be a function of the samples, got int"),
    ):
        for limit in (1, 100):
            with pytest.raises(error, match=message):
                softdraw.diagnose(f, LAW, [softdraw.LeaveOneOut(2)], exact_limit=limit)


def test_import_stays_light():
    heavy = "import sys, softdraw; print({'rich', 'typer', 'matplotlib', 'scipy', 'sklearn'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
