"""`softdraw compare` and `softdraw train --rule`: what a rule changes, what it does not, and comparisons that stop."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from processes import killed

import softdraw
from softdraw.cli import run
from softdraw.errors import InputError
from softdraw.recipes import autoencoder
from softdraw.recipes.autoencoder.loop import Trainer
from softdraw.recipes.autoencoder.model import Autoencoder
from softdraw.recipes.autoencoder.settings import Settings, rule_settings
from softdraw.recipes.runs.comparison import estimate
from softdraw.recipes.runs.ranks import Ranks

pytestmark = pytest.mark.xdist_group("compare")


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    """60 images of 4x6 in two kinds, bright left or bright right: one bit to code."""
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 0.2, (60, 4, 6))
    images[:30, :, :3] += 0.7
    images[30:, :, 3:] += 0.7
    path = tmp_path_factory.mktemp("data") / "two.npy"
    np.save(path, images)
    return str(path)


@pytest.fixture(scope="module", autouse=True)
def _no_pictures_of_runs():
    """They are tested in test_train, and take longer than runs this small."""
    with pytest.MonkeyPatch.context() as patch:
        blank = dict.fromkeys(autoencoder.AUTOENCODER.pictures, b"\x89PNG")
        patch.setattr(autoencoder, "AUTOENCODER", replace(autoencoder.AUTOENCODER, draw=lambda trainer: blank))
        yield


def train(pixels, out, *options, epochs=4):
    """The metrics of a run."""
    small = ["--latents", "3x4", "--batch", "16", "--epochs", str(epochs)]
    assert run(["train", "--data", pixels, "--out", str(out), *small, *options]) == 0
    return (out / "metrics.jsonl").read_text()


@pytest.mark.parametrize(("rule", "hard"), [("GumbelSoftmax", False), ("StraightThroughGumbel", True)])
def test_draws_of_the_relaxed_rules_are_those_of_gumbel_softmax(rule, hard):
    """Bit for bit, gradient included: the rule is the machinery's, the computation the function's."""
    model = Autoencoder(torch.full((12,), 0.5), Settings(rule=rule), torch.Generator().manual_seed(0))
    model.tau = 0.7
    logits = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    seed, ids = torch.tensor(3), torch.tensor([5, 0, 9, 2, 7, 1])
    ours = model.draw(logits, seed, ids)
    theirs = softdraw.gumbel_softmax(logits, torch.tensor(0.7), hard, seed=seed, rows=ids)
    assert torch.equal(ours, theirs)
    arriving = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2))
    assert torch.equal(torch.autograd.grad(ours, logits, arriving)[0], torch.autograd.grad(theirs, logits, arriving)[0])


def test_short_words_for_rules_give_the_same_run(pixels, tmp_path):
    default = train(pixels, tmp_path / "a")
    assert train(pixels, tmp_path / "b", "--rule", "gumbel-softmax") == default
    assert train(pixels, tmp_path / "c", "--rule", "gs", "--tau", "1.0:0.5") == default
    hard = train(pixels, tmp_path / "d", "--hard")
    assert train(pixels, tmp_path / "e", "--rule", "straight-through-gumbel") == hard != default
    one = train(pixels, tmp_path / "f", "--rule", "reinmax:tau=1.1")
    assert train(pixels, tmp_path / "g", "--rule", "reinmax", "--tau", "1.1") == one
    assert {json.loads(line)["tau"] for line in one.splitlines()} == {1.1}


def test_every_pathwise_rule_trains_and_identities_hold_through_training(pixels):
    """ReinMax(1) = ZGR, and Gumbel-Rao of one sample = straight-through Gumbel-softmax, up to rounding."""
    words = ("zgr", "reinmax:tau=1", "stg:tau=.5", "gumbel-rao:tau=.5:samples=1", "st:tau=1", "gs:tau=.5", "gst:tau=.5")
    words += ("reinmax:tau=2", "minimum-variance:tau=10", "gumbel-rao:tau=.5:samples=8", "reinmax-rao:tau=2:samples=8")
    found = {}
    for word in words:
        settings = Settings(data=pixels, groups=3, categories=4, batch_size=16, epochs=2, **rule_settings(word))
        trainer = Trainer(settings, torch.device("cpu"), Ranks())
        trainer.epoch()
        found[word] = trainer.epoch()
    assert "tau" not in found["zgr"]
    for a, b in itertools.combinations(words, 2):
        near = found[a]["train_nelbo"] == pytest.approx(found[b]["train_nelbo"], rel=1e-6)
        assert near == ((a, b) in (words[:2], words[2:4])), (a, b)


def test_a_rule_is_resumed(pixels, tmp_path, capsys):
    """The rule and its tau come from the run; another one is refused."""
    train(pixels, tmp_path / "a", "--rule", "reinmax:tau=1.1")
    before = (tmp_path / "a" / "metrics.jsonl").read_bytes()
    assert run(["train", "--data", pixels, "--out", str(tmp_path / "a"), "--resume"]) == 0
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == before
    capsys.readouterr()
    for rule, message in (("zgr", "has rule ReinMax, not ZGR"), ("reinmax:tau=1.2", "has tau_start 1.1, not 1.2")):
        arguments = ["train", "--data", pixels, "--out", str(tmp_path / "a"), "--resume", "--rule", rule]
        assert message in refused(capsys, *arguments)


def refused(capsys, *arguments):
    """The one line with which the command ends."""
    assert run(list(map(str, arguments))) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("softdraw: ")
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rule", "magic"], "there is no pathwise rule 'magic': choose from ZGR, GappedStraightThrough, GumbelRao"),
        (["--rule", "leave-one-out"], "there is no pathwise rule 'leave-one-out'"),
        (["--rule", "reinmax:gap=1"], "it takes tau="),
        (["--rule", "reinmax:tau=0"], "must be positive"),
        (["--rule", "zgr", "--hard"], "--hard is short for --rule straight-through-gumbel, got --rule zgr as well"),
        (["--rule", "zgr", "--tau", "1"], "--tau plays no part"),
        (["--rule", "st:tau=1", "--schedule", "linear"], "--schedule plays no part"),
    ],
)
def test_bad_rules_of_train(capsys, pixels, tmp_path, options, message):
    assert message in refused(capsys, "train", "--data", pixels, "--out", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_a_rule_has_one_way_to_be_written():
    assert rule_settings("gumbel-rao:samples=10") == rule_settings("GR") == {"rule": "GumbelRao"}
    assert rule_settings("gr:samples=3:tau=.1") == {"rule": "GumbelRao:samples=3", "tau_start": 0.1, "tau_end": 0.1}
    with pytest.raises(InputError, match="not in canonical words"):
        Settings(rule="reinmax:tau=1.1")


def test_estimate_is_the_mean_and_its_standard_error():
    values = [3.0, 5.0, 10.0]
    mean, error = estimate(values)
    assert mean == pytest.approx(6.0)
    assert error == pytest.approx(np.std(values, ddof=1) / np.sqrt(3))
    assert estimate([2.0]) == (2.0, None)


RULES = "gumbel-softmax,zgr,reinmax:tau=1.3"


def command(pixels, out, rules=RULES, seeds=2, epochs=3):
    small = ["--latents", "3x4", "--batch", "16", "--epochs", str(epochs), "--seeds", str(seeds), "--tau", "2:0.7"]
    return ["compare", "--rules", rules, "--data", pixels, "--out", str(out), *small]


@pytest.fixture(scope="module")
def whole(pixels, tmp_path_factory):
    """A comparison that nothing interrupted."""
    out = tmp_path_factory.mktemp("compare") / "whole"
    assert run(command(pixels, out)) == 0
    return out


def test_a_comparison_is_that_of_its_runs(whole, pixels, tmp_path):
    """Its figures against numpy on the metrics of the runs, and a run against softdraw train."""
    report = json.loads((whole / "compare.json").read_text())
    folders = {"GumbelSoftmax": "GumbelSoftmax", "ZGR": "ZGR", "ReinMax:tau=1.3": "ReinMax_tau=1.3"}
    assert {entry["rule"] for entry in report["rules"]} == set(folders)
    nelbo = {}
    for name, folder in folders.items():
        lasts = [(whole / folder / f"seed-{s}" / "metrics.jsonl").read_text().splitlines()[-1] for s in (0, 1)]
        nelbo[name] = np.array([json.loads(line)["valid_nelbo"] for line in lasts])
    assert [entry["rule"] for entry in report["rules"]] == sorted(nelbo, key=lambda name: nelbo[name].mean())
    best = nelbo[report["rules"][0]["rule"]]
    for entry in report["rules"]:
        own = nelbo[entry["rule"]]
        for key, values in (("nelbo", own), ("nelbo_behind_the_first", own - best)):
            assert entry[key]["mean"] == pytest.approx(values.mean(), rel=1e-12)
            assert entry[key]["standard_error"] == pytest.approx(values.std(ddof=1) / np.sqrt(2), rel=1e-9)
            assert entry[key]["seeds"] == pytest.approx(values)
        total = entry["reconstruction"]["mean"] + entry["kl"]["mean"]
        assert total == pytest.approx(entry["nelbo"]["mean"], rel=1e-12)
    assert {entry["rule"]: entry["tau"] for entry in report["rules"]} == {
        "GumbelSoftmax": [2.0, 0.7], "ZGR": None, "ReinMax:tau=1.3": [1.3, 1.3]
    }  # fmt: skip
    assert (whole / "compare.png").read_bytes().startswith(b"\x89PNG")
    alone = train(pixels, tmp_path / "alone", "--rule", "reinmax:tau=1.3", "--seed", "1", epochs=3)
    assert (whole / "ReinMax_tau=1.3" / "seed-1" / "metrics.jsonl").read_text() == alone


# In fsyncs, two of which are a write: a comparison's config.json takes two, a run of 3 epochs 2 + 3 * 4 and its four
# pictures 8.


@pytest.mark.parametrize("writes", [2 + 22 + 9, 2 + 6 * 22 + 1], ids=["second run", "compare.json"])
def test_killed_and_continued_equals_uninterrupted(whole, pixels, tmp_path, writes):
    arguments = command(pixels, tmp_path / "out")
    killed(writes, arguments)
    assert not (tmp_path / "out" / "compare.json").exists()
    assert run(arguments) == 0
    for name in ("compare.json", "config.json", "ZGR/seed-0/metrics.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes()
    assert not list((tmp_path / "out").rglob("*.part"))


def test_rules_and_seeds_may_be_added(whole, pixels, tmp_path, capsys):
    """Finished runs are not trained again, and the result equals that of one comparison of all."""
    out = tmp_path / "out"
    assert run(command(pixels, out, rules="gumbel-softmax", seeds=1)) == 0
    printed = capsys.readouterr().out
    assert "±" not in printed  # one seed has no standard error
    assert json.loads((out / "compare.json").read_text())["rules"][0]["nelbo"]["standard_error"] is None
    before = (out / "GumbelSoftmax" / "seed-0" / "checkpoint.pt").stat().st_mtime_ns
    assert run(command(pixels, out)) == 0
    assert (out / "GumbelSoftmax" / "seed-0" / "checkpoint.pt").stat().st_mtime_ns == before
    assert (out / "compare.json").read_bytes() == (whole / "compare.json").read_bytes()
    printed = capsys.readouterr().out
    assert [line.split("/6")[0] for line in printed.splitlines() if "/6" in line] == list("123456")
    assert printed.count("±") >= 5
    assert "\x1b" not in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rules", "zgr,magic"], "there is no pathwise rule 'magic': choose from ZGR, GappedStraightThrough"),
        (["--rules", "zgr,rebar"], "there is no pathwise rule 'rebar'"),
        (["--rules", "zgr,,st"], "there is no pathwise rule ''"),
        (["--rules", "st,straight-through"], "names StraightThrough twice"),
        (["--rules", "zgr,st:tau=1", "--tau", "2"], "--tau plays no part"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--latents", "5"], "--latents must be"),
        (["--tau", "0"], "--tau must be"),
        (["--device", "abacus"], "is not a device"),
        (["--data", "none.npy"], "no such file"),
    ],
)
def test_bad_options_of_compare(capsys, pixels, tmp_path, options, message):
    assert message in refused(capsys, "compare", "--data", pixels, "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_folders_of_compare_are_never_overwritten(capsys, whole, pixels, tmp_path):
    before = {file: file.read_bytes() for file in whole.rglob("*") if file.is_file()}
    assert "the comparison in" in refused(capsys, *command(pixels, whole, epochs=4))
    assert "has epochs 3, not 4" in refused(capsys, *command(pixels, whole, rules="st,zgr", epochs=4))
    np.save(tmp_path / "other.npy", np.load(pixels)[::-1])
    assert "are not those of the comparison" in refused(capsys, *command(str(tmp_path / "other.npy"), whole))
    assert {file: file.read_bytes() for file in whole.rglob("*") if file.is_file()} == before

    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").touch()
    assert "holds other files (thesis.tex)" in refused(capsys, *command(pixels, mine))
    train(pixels, tmp_path / "run", epochs=1)
    capsys.readouterr()
    assert "is not that of a comparison" in refused(capsys, *command(pixels, tmp_path / "run"))
    assert "holds other files" in refused(capsys, "train", "--data", pixels, "--out", whole, "--resume")


def test_a_diverging_rule_is_named(capsys, pixels, tmp_path):
    arguments = [*command(pixels, tmp_path / "out", rules="st"), "--lr", "1e30"]
    assert run(arguments) == 2
    assert "softdraw: StraightThrough, seed 0: the loss is not finite" in capsys.readouterr().err
