"""The contestants of ``softdraw bench``: all ways of a line compute the same thing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import softdraw
from softdraw.bench import GROUPS, Setting, contestants, left_out, line, modules, rules
from softdraw.bench.line import Gradient
from softdraw.nn.noise import logistic, normal
from softdraw.seeds import prepare_seed

CLOSED = ("StraightThrough", "ZGR", "ReinMax", "GappedStraightThrough")


def calls_of(operation):
    return contestants.contestants(Setting(operation, 6, 5, torch.float32, 1))


def assert_same(a, b):
    """The same forward values and gradients."""
    torch.testing.assert_close(a.forward().float(), b.forward().float(), rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(a(), b(), strict=True):
        assert mine.abs().max() > 1e-4
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("operation", [*GROUPS["laws"], *GROUPS["losses"]])
def test_laws_and_losses_equal_what_they_are_compared_with(operation):
    calls = calls_of(operation)
    assert len(calls) >= 3
    for name, call in calls.items():
        if name != "clone":
            assert_same(calls["softdraw"], call)


@pytest.mark.parametrize("operation", [*CLOSED, "bits:StraightThrough", "bits:ZGR"])
def test_a_rule_by_hand_has_the_gradient_of_ours_at_the_same_sample(operation, monkeypatch):
    one_hots = torch.eye(5)[[0, 3, 1, 4, 2, 2]]
    sample = (torch.arange(30).view(6, 5) % 3 == 0).float() if "bits" in operation else one_hots
    drawn = []
    monkeypatch.setattr(rules, "_one_hot", lambda p: drawn.append(p) or sample)
    monkeypatch.setattr(rules, "_bits", lambda p: drawn.append(p) or sample)
    monkeypatch.setattr(rules, "draw", lambda law, rule: softdraw.draw(law, rule, value=sample))
    calls = calls_of(operation)
    assert drawn[0].shape == (6, 5)
    for name in {"by hand", "law"} & set(calls):
        assert torch.equal(calls[name].forward().round(decimals=5), sample)
        assert_same(calls["softdraw"], calls[name])


@pytest.mark.parametrize("operation", ["GumbelRao", "ReinMaxRao"])
def test_gumbel_rao_by_hand_has_the_mean_gradient_of_ours(operation, monkeypatch):
    """At one sample, the mean over 2 x 20000 draws of the conditional noise: within 5 standard errors."""
    sample, n = torch.eye(3)[[0, 2]], 20000
    ours, by_hand = {
        "GumbelRao": (softdraw.GumbelRao(0.5, 1), lambda x: rules.gumbel_rao(x, 0.5, 1)),
        "ReinMaxRao": (softdraw.ReinMaxRao(1.0, 1), lambda x: rules.reinmax_rao(x, 1.0, 1)),
    }[operation]
    monkeypatch.setattr(rules, "_one_hot", lambda p: sample.expand(n, 2, 3))
    logits = torch.tensor([[0.5, -0.3, 0.2], [1.0, 0.0, -1.0]]).expand(n, 2, 3)
    means, errors = [], []
    torch.manual_seed(0)
    for f in (lambda x: softdraw.draw(x, ours, value=sample.expand(n, 2, 3), seed=0), by_hand):
        x = logits.clone().requires_grad_()
        (f(x) * torch.tensor([3.0, 1.0, -2.0])).sum().backward()
        means.append(x.grad.mean(0))
        errors.append(x.grad.std(0) / n**0.5)
    gap = (means[0] - means[1]).abs()
    assert gap.max() < 0.05  # of gradients around 1
    assert (gap < 5 * (errors[0] ** 2 + errors[1] ** 2).sqrt()).all()


def test_gumbel_rao_by_hand_is_the_mean_over_its_samples(monkeypatch):
    x, d = torch.randn(4, 3), torch.eye(3)[[0, 1, 2, 0]]
    scores = torch.randn(10, 4, 3)
    monkeypatch.setattr(rules, "_one_hot", lambda p: d)
    for f in (rules.gumbel_rao, rules.reinmax_rao):
        monkeypatch.setattr(rules, "_conditional", lambda theta, d, samples: scores[:samples])
        whole = Gradient(lambda x, f=f: f(x, 0.7, 10), x)()[0]
        parts = []
        for k in range(10):
            monkeypatch.setattr(rules, "_conditional", lambda theta, d, samples, k=k: scores[k : k + 1])
            parts.append(Gradient(lambda x, f=f: f(x, 0.7, 1), x)()[0])
        torch.testing.assert_close(whole, torch.stack(parts).mean(0))


def test_conditional_noise_by_hand_has_its_maximum_at_the_sample():
    d = torch.eye(4)[torch.arange(4)]
    scores = rules._conditional(torch.randn(4, 4), d, 50)
    assert scores.shape == (50, 4, 4)
    assert torch.equal(scores.argmax(-1), torch.arange(4).expand(50, 4))


@pytest.mark.parametrize(("operation", "hard"), [("GumbelSoftmax", False), ("StraightThroughGumbel", True)])
def test_these_rules_are_gumbel_softmax(operation, hard):
    """With one seed ours, ours by the law, and our gumbel_softmax are the same numbers."""
    calls = calls_of(operation)
    found = {}
    for name in ("softdraw", "law", "gumbel"):
        torch.manual_seed(3)
        value = calls[name].forward()
        torch.manual_seed(3)
        found[name] = (value, *calls[name]())
    for name in ("law", "gumbel"):
        for mine, theirs in zip(found["softdraw"], found[name], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    ones = (calls["eager"].forward().detach() > 0.999).sum(-1)
    assert (ones == 1).all() == hard


def test_a_rule_by_hand_draws_from_the_law():
    """A hundred thousand one-hots and bits: frequencies within 5 standard errors."""
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    x = p.log().expand(100_000, 4)
    for f in (rules.straight_through, rules.zgr, lambda x: rules.reinmax(x, 1.1)):
        assert ((f(x).mean(0) - p).abs() < 5 * (p * (1 - p) / 100_000).sqrt()).all()
    q = x.sigmoid()[0]
    for f in (rules.bits_straight_through, rules.bits_zgr):
        assert ((f(x).mean(0) - q).abs() < 5 * (q * (1 - q) / 100_000).sqrt()).all()


def test_noise_that_no_memory_holds_is_not_made_by_hand(monkeypatch):
    monkeypatch.setattr(rules, "_MOST", 6 * 5 * 10 - 1)
    assert "by hand" not in calls_of("GumbelRao")
    assert "by hand" in calls_of("ZGR")
    monkeypatch.setattr(rules, "_MOST", 6 * 5 * 10)
    assert "by hand" in calls_of("GumbelRao")


SEED = 3  # of the global generator, from which a module that is given none takes the seed of its draw


def draws_of_ours(monkeypatch):
    """What is written by hand gets the noise that ours will take: both then compute the same numbers."""

    def seed():
        torch.manual_seed(SEED)
        return prepare_seed(None, None, torch.device("cpu"))

    def straight_through(p):
        sample = softdraw.OneHotCategorical(probs=p.detach()).sample(seed=seed())
        return sample + p - p.detach()

    def gumbel_softmax(logits, tau, hard):
        return softdraw.gumbel_softmax(logits, tau, hard, seed=seed())

    monkeypatch.setattr(modules, "_uniform", lambda x: logistic(x, seed(), None).sigmoid())
    monkeypatch.setattr(modules, "_normal", lambda x: normal(x, seed(), None))
    monkeypatch.setattr(modules, "_straight_through", straight_through)
    monkeypatch.setattr(torch.nn.functional, "gumbel_softmax", gumbel_softmax)


def assert_same_step(ours, theirs):
    """With the same weights: the same value, penalty and gradients."""
    with torch.no_grad():
        for i, (mine, other) in enumerate(zip(ours.leaves, theirs.leaves, strict=True)):
            mine.normal_(generator=torch.Generator().manual_seed(i))
            other.copy_(mine.view_as(other))
    found = []
    for call in (ours, theirs):
        torch.manual_seed(SEED)
        value = call.forward()
        torch.manual_seed(SEED)
        found.append((value, *call()))
    for mine, other in zip(*found, strict=True):
        assert mine.abs().max() > 1e-4
        torch.testing.assert_close(mine, other.view_as(mine), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("operation", ["Latent", "Router", "Gate"])
def test_a_module_by_hand_takes_the_step_of_ours(operation, monkeypatch):
    draws_of_ours(monkeypatch)
    calls = contestants.contestants(Setting(operation, 12, 5, torch.float32, 1))
    assert_same_step(calls["softdraw"], calls["by hand"])


def test_the_quantiser_of_transformers_takes_the_step_of_ours(monkeypatch):
    pytest.importorskip("transformers")
    draws_of_ours(monkeypatch)
    calls = contestants.contestants(Setting("Codebook", 12, 5, torch.float32, 1))
    assert_same_step(calls["softdraw"], calls["transformers"])


@pytest.mark.parametrize("operation", GROUPS["modules"])
@pytest.mark.parametrize(("rows", "cols"), [(7, 1), (8, 3)])
def test_a_step_reaches_the_input_and_every_parameter(operation, rows, cols):
    """One code, odd numbers of rows, and 16 bits."""
    for dtype in (torch.float32, torch.bfloat16):
        calls = contestants.contestants(Setting(operation, rows, cols, dtype, 1))
        for name, call in calls.items():
            if name not in ("clone", "vq"):  # the latter's codes get their gradient from its penalty alone
                assert isinstance(call, Gradient)
                gradients = call()
                assert len(gradients) == len(call.leaves) > 1
                assert all(
                    g.shape == x.shape and g.isfinite().all() for g, x in zip(gradients, call.leaves, strict=True)
                )


def test_a_library_that_is_not_installed_is_left_out_and_named(monkeypatch):
    for module in (line, modules):
        monkeypatch.setattr(module, "find_spec", lambda package: None)
    assert [*contestants.contestants(Setting("Codebook", 4, 3, torch.float32, 1))] == ["softdraw", "clone"]
    assert left_out(["ZGR", "Codebook"]) == [
        "Codebook without transformers, which is not installed: pip install transformers==5.24.0",
        "Codebook without vq, which is not installed: pip install vector-quantize-pytorch==1.32.0",
    ]


def test_the_versions_beside_figures_are_pinned():
    pinned = (Path(__file__).parents[1] / "constraints.txt").read_text().split()
    assert {package for package, _ in modules.QUANTISERS.values()} <= set(pinned)


@pytest.mark.parametrize("operation", GROUPS["linear"])
def test_a_layer_and_draw_in_one_equals_the_unfused_way(operation, monkeypatch):
    monkeypatch.setattr("softdraw.bench.linear.seed_for", lambda *_: prepare_seed(3, None, torch.device("cpu")))
    monkeypatch.setattr("softdraw.linear.draw.seed_for", lambda *_: prepare_seed(3, None, torch.device("cpu")))
    calls = calls_of(operation)
    assert list(calls) == ["softdraw", "unfused", "by hand", "products", "clone"]
    if operation == "linear_draw":
        assert torch.equal(calls["softdraw"](), calls["unfused"]())
    else:
        ours, unfused, by_hand = (calls[name]() for name in ("softdraw", "unfused", "by hand"))
        for mine, theirs in zip(ours, unfused, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
        assert [g.shape for g in ours] == [g.shape for g in by_hand]
