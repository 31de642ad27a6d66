"""diagnose against enumerated bias and variance; its truth, its budget, its report, its command."""

import subprocess
import sys
import time

import pytest
import torch
from torch.distributions import Independent

import softdraw
from softdraw.cli import run
from softdraw.errors import InputError
from softdraw.reproduce import bias_variance
from softdraw.rules.spelling import parse_rule
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


def test_report_in_words_and_picture(report, tmp_path):
    text = str(report)
    for word in ("StraightThrough(tau=1)", "ReinMax(tau=2)", "LeaveOneOut(samples=4)", "20000", "± "):
        assert word in text
    advice = report.advice
    assert advice.startswith("With 1 evaluation of f per step and about 100 steps averaged, ")
    best = min(report.rules[:3], key=lambda r: r.error(100))
    assert f"averaged, {best.name}: bias" in advice
    report.plot(str(tmp_path / "a.png"))
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_problem.py").write_text(
        "import torch, softdraw\n"
        "def make():\n"
        "    law = softdraw.OneHotCategorical(torch.tensor([1.0, 0.0, -1.0]))\n"
        "    return lambda y: (y @ torch.tensor([1.0, -1.0, 0.5])) ** 2, law\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ["own_problem:make", "--rules", "st,reinmax:tau=1.1", "--samples", "100", "--picture", "p.png"]
    assert run(["diagnose", *words]) == 0
    out = capsys.readouterr().out
    assert "StraightThrough(tau=1)" in out
    assert "ReinMax(tau=1.1)" in out
    assert (tmp_path / "p.png").exists()
    for arguments, message in (
        (["own_problem:nope"], "own_problem has no nope"),
        (["no_such_module:make"], "there is no module no_such_module"),
        (["own_problem"], "does not name a function"),
        (["own_problem:make", "--rules", "foo"], "there is no rule 'foo'"),
        (["own_problem:make", "--rules", "reinmax:tau=0"], "tau of ReinMax must be positive"),
        (["own_problem:make", "--rules", "zgr:tau=1"], "it takes nothing"),
        (["own_problem:make", "--rules", "disarm"], "DisARM does not serve OneHotCategorical"),
        (["own_problem:make", "--picture", "no/such/p.png"], "there is no folder"),
        (["own_problem:make", "--samples", "1"], "samples >= 50"),
    ):
        assert run(["diagnose", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_rules_as_words():
    for word in ("st", "StraightThrough", "straight-through"):
        assert parse_rule(word) == softdraw.StraightThrough()
    assert parse_rule("gst") == softdraw.GappedStraightThrough()
    assert parse_rule("gumbel-rao:tau=.5:samples=20") == softdraw.GumbelRao(0.5, 20)
    assert parse_rule("gumbel-softmax") == softdraw.GumbelSoftmax()
    with pytest.raises(InputError, match="does not make a ReinMax"):
        parse_rule("reinmax:tau")


def test_reproduce_command(capsys):
    assert run(["reproduce", "polynomial", "--steps", "2"]) == 0
    assert "Ours after 2 steps, not 8000" in capsys.readouterr().out
    assert run(["reproduce", "polynomial", "--p", "4"]) == 2
    assert "choose 1.5, 2 or 3" in capsys.readouterr().err


def test_import_stays_light():
    heavy = "import sys, softdraw; print({'rich', 'typer', 'matplotlib', 'scipy', 'sklearn'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
