"""What `train` and `compare` say: that a run diverged, what its code carries, that it was extended; in 80 columns."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from softdraw.cli import run as softdraw
from softdraw.recipes.autoencoder import pictures, report
from softdraw.recipes.autoencoder.loop import LEAST, Trainer
from softdraw.recipes.autoencoder.model import kl_of_images
from softdraw.recipes.autoencoder.settings import Settings
from softdraw.recipes.runs.ranks import Ranks
from softdraw.recipes.runs.run import Start

pytestmark = pytest.mark.xdist_group("says")
SMALL = ["--latents", "4x5", "--batch", "16"]


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    """40 images of 4x6 in two kinds, bright left or bright right: one bit to code."""
    images = np.random.default_rng(0).uniform(0, 0.2, (40, 4, 6))
    images[:20, :, :3] += 0.7
    images[20:, :, 3:] += 0.7
    path = tmp_path_factory.mktemp("data") / "two.npy"
    np.save(path, images)
    return str(path)


def without_code(pixels, tmp_path):
    """The loss of one image for all, of the training and the held-out images, in float64."""
    x = torch.from_numpy(np.load(pixels)).float().reshape(40, 24)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    train, valid = x[order[8:]].double(), x[order[:8]].double()
    p = (train.sum(0) + 0.5) / 33
    return [float(-(part * p.log() + (1 - part) * (1 - p).log()).sum(-1).mean()) for part in (train, valid)]


@pytest.mark.parametrize("command", [["train"], ["compare", "--rules", "gs", "--seeds", "1"]])
def test_a_diverged_run_says_so_and_fails(command, pixels, tmp_path, capsys):
    out = tmp_path / "run"
    assert softdraw([*command, *SMALL, "--data", pixels, "--out", str(out), "--epochs", "3", "--lr", "1e9"]) == 1
    printed = capsys.readouterr()
    assert "nELBO" in printed.out  # the table and the files are there, for whoever wants to see how
    said = re.search(r"the run diverged: a training image costs (\S+) nats after epoch 3, far worse", printed.err)
    [metrics] = out.rglob("metrics.jsonl")
    last = json.loads(metrics.read_text().splitlines()[-1])
    assert float(said[1]) == pytest.approx(last["train_nelbo"], rel=5e-3)
    assert last["train_nelbo"] > 1e5
    assert f"no code at all ({without_code(pixels, tmp_path)[0]:.2f} with one image for all): lower --lr" in printed.err
    assert printed.err.count("\n") == 1
    assert ("seed 0: the run" in printed.err) == (command[0] == "compare")


def test_one_epoch_is_said_in_the_singular_and_continues_from_another_folder(pixels, tmp_path, capsys, monkeypatch):
    """The path of the data was given relative to the folder where the run began."""
    here, there = Path(pixels).parent, tmp_path / "elsewhere"
    there.mkdir()
    monkeypatch.chdir(here)
    out = str(tmp_path / "run")
    assert softdraw(["train", *SMALL, "--data", "two.npy", "--out", out, "--epochs", "1"]) == 0
    assert "After 1 epoch\n" in capsys.readouterr().out
    monkeypatch.chdir(there)
    assert softdraw(["train", "--out", out, "--epochs", "2", "--resume"]) == 0
    printed = capsys.readouterr().out
    assert "extended after epoch 1: 2 epochs in place of 1" in printed
    assert "After 2 epochs" in printed


def test_a_loss_that_is_not_finite_ends_the_run(pixels, tmp_path, capsys):
    arguments = ["train", *SMALL, "--data", pixels, "--out", str(tmp_path / "run"), "--epochs", "3", "--lr", "1e30"]
    assert softdraw(arguments) == 2
    assert "the run diverged, and is worse than no code at all: lower --lr" in capsys.readouterr().err


@pytest.fixture
def trainer(pixels):
    settings = Settings(data=pixels, groups=4, categories=5, batch_size=16, epochs=4)
    trainer = Trainer(settings, torch.device("cpu"), Ranks())
    trainer.epoch()
    return trainer


def test_the_limit_of_divergence_is_what_knows_nothing(trainer):
    """24 pixels of log 2 and 4 latents of log 5, in nats: 16.64 + 6.44. An untrained model is not above it."""
    for value, diverged in ((23.0, False), (23.1, True)):
        trainer.history[-1]["train_nelbo"] = value
        assert (report.failure(trainer) is not None) == diverged
    fresh = Trainer(replace(trainer.settings, seed=1), torch.device("cpu"), Ranks())
    assert fresh.evaluate(fresh.train, 1)["nelbo"] < 23.0


def test_a_result_worse_than_no_code_is_called_so(trainer, pixels, tmp_path):
    train, valid = without_code(pixels, tmp_path)
    trainer.history[-1] |= {"train_nelbo": train - 0.1, "valid_nelbo": valid - 0.1, "valid_active_latents": 4}
    assert len(report.remarks(trainer)) == 1  # the seconds
    trainer.history[-1]["valid_nelbo"] = valid + 0.1
    remark = report.remarks(trainer)[0].replace("\n", " ")
    assert remark.startswith(
        f"Worse than no code at all: a held-out image costs {valid + 0.1:.2f} nats, and {valid:.2f}"
    )
    assert "learns them by heart" in remark
    trainer.history[-1]["train_nelbo"] = train + 0.1
    assert "Train longer" in report.remarks(trainer)[0]


def test_latents_that_carry_nothing_are_counted(trainer):
    """Two of the four latents are made flat; what the others carry is counted by torch.distributions."""
    with torch.no_grad():
        last = trainer.model.encoder[-1]
        last.weight.view(4, 5, -1)[[0, 2]] = 0
        last.weight.view(4, 5, -1)[[1, 3]] *= 30
        last.bias.zero_()
        last.bias.view(4, 5)[2, 0] = 0.11  # KL to uniform: 0.0010 nats
        logits = trainer.model.encode(trainer.valid)
    q = torch.distributions.Categorical(logits=logits.double())
    p = torch.distributions.Categorical(logits=torch.zeros_like(logits).double())
    carried = torch.distributions.kl_divergence(q, p).mean(0)
    assert 5e-4 < carried[2] < 2e-3 < LEAST < carried[1]
    found = trainer.evaluate(trainer.valid, 1)
    assert found["active_latents"] == int((carried >= 0.01).sum()) == 2
    assert found["kl"] == pytest.approx(float(carried.sum()), rel=1e-5)
    assert float(kl_of_images(logits).mean()) == pytest.approx(float(carried.sum()), rel=1e-5)
    trainer.history[-1] |= {f"valid_{name}": value for name, value in found.items()}
    assert "2 of 4 latents carry less than 0.01 nats of a held-out image." in report.remarks(trainer)
    rows = {row[0]: row[1:] for row in report.table(trainer)}
    assert rows["latents with 0.01 nats or more"][1] == "2 of 4"
    assert rows["active codes"][1] == f"{found['active_codes']} of 20"
    assert rows["perplexity of the codes"][1] == f"{found['perplexity']:.2f} of 5"


def test_curves_show_the_end_and_not_the_height_that_they_fall_from(trainer):
    """40 epochs from 500 to 21 nats: the axis begins where the first tenth has passed."""
    nelbo = [500.0 * 0.5**i + 21 for i in range(40)]
    record = trainer.history[-1]
    trainer.history[:] = [
        record | {"epoch": i + 1, "train_nelbo": value - 0.5, "valid_nelbo": value, "valid_shuffled_nelbo": value + 30}
        for i, value in enumerate(nelbo)
    ]
    low, high = pictures._curves(trainer).axes[0].get_ylim()
    none = trainer.without_code(trainer.valid)
    margin = 0.05 * (nelbo[4] - min(20.5, none))
    assert (low, high) == (pytest.approx(min(20.5, none) - margin, rel=1e-3), pytest.approx(nelbo[4] + margin))
    assert high < 60
    gaps = pictures._curves(trainer).axes[1].lines[0].get_ydata()
    np.testing.assert_allclose(gaps, 30)


# A run that is made longer


def train(pixels, out, *options):
    assert softdraw(["train", *SMALL, "--data", pixels, "--out", str(out), *options]) == 0
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_an_extended_run_follows_the_schedules_of_the_new_length(pixels, tmp_path, capsys):
    """Of 2 steps an epoch: tau is linear over 8 and then over 16 steps, the weight of the KL term over half of them."""
    out, options = tmp_path / "run", ["--schedule", "linear", "--tau", "1:0.2"]
    short = train(pixels, out, *options, "--epochs", "4")
    assert [record["tau"] for record in short] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    capsys.readouterr()
    extended = train(pixels, out, *options, "--epochs", "8", "--resume")
    printed = capsys.readouterr().out
    assert "extended after epoch 4: 8 epochs in place of 4" in printed
    assert "so the KL weight goes on from 1 (it was 1) and tau from 0.6 (it was 0.2)" in printed
    assert extended[:4] == short
    assert [record["tau"] for record in extended[4:]] == pytest.approx([0.5, 0.4, 0.3, 0.2])
    assert extended[3:] != train(pixels, tmp_path / "long", *options, "--epochs", "8")[3:]
    states = [torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (out, tmp_path / "long")]
    assert torch.equal(*(state["generator"] for state in states))  # orders and seeds are those of the long run
    config = json.loads((out / "config.json").read_text())
    assert (config["epochs"], config["extended"]) == (8, [{"after": 4, "from": 4}])
    by_hand = Trainer(Settings(**{k: v for k, v in config.items() if k not in ("extended", "data_sha256")}),
                      torch.device("cpu"), Ranks())  # fmt: skip
    by_hand.load(torch.load(out / "checkpoint.pt", weights_only=True))
    assert by_hand.tau.last_step == 16
    before = (out / "config.json").read_bytes()
    small = ["train", *SMALL, "--data", pixels, "--out", str(out), *options, "--resume", "--epochs", "7"]
    assert softdraw(small) == 2
    assert "has epochs 8, not 7: --epochs may grow, which extends the run, but not shrink" in capsys.readouterr().err
    assert (out / "config.json").read_bytes() == before


def test_what_an_extension_says_without_a_tau(pixels):
    trainer = Trainer(Settings(data=pixels, rule="ZGR", batch_size=16, epochs=40), torch.device("cpu"), Ranks())
    for _ in range(10):
        trainer.tau.step()
    text = report.extension(trainer, Start(done=5, extended_from=10))  # 10 of 20 steps, now of 80
    assert "extended after epoch 5: 40 epochs in place of 10" in text
    assert text.endswith("the KL weight goes on from 0.25 (it was 1)")


# What a person sees


def test_nothing_is_wider_than_80_columns(pixels, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    os.symlink(pixels, "digits.npy")
    assert softdraw(["train", "--data", "digits.npy", "--epochs", "2", "--rule", "straight-through-gumbel"]) == 0
    assert softdraw(["train", "--data", "digits.npy", "--epochs", "3", "--resume"]) == 0
    rules = "gs,straight-through-gumbel,gapped-straight-through,gumbel-rao:samples=20,reinmax-rao:tau=1.25"
    assert softdraw(["compare", "--data", "digits.npy", "--epochs", "1", "--rules", rules, "--seeds", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 50
    assert [x for x in lines if len(x) > 80] == []
    assert any(
        line.split() == ["rule", "tau", "nELBO", "the", "first", "struction", "KL", "a", "run"] for line in lines
    )


def test_a_terminal_shows_that_the_program_is_loading(tmp_path):
    """Until the first line, and gone before it: here an error, after the images were looked for."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "softdraw", "train", "--data", str(tmp_path / "none.npy")]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    ended = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, env=environment, timeout=120)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert "loading torch and the images ..." in shown.decode()
    assert shown.endswith(b"\x1b[2K")  # the line is erased
    assert ended.stderr.startswith(b"softdraw: --data ")
    assert ended.returncode == 2


def test_no_such_line_without_a_terminal(pixels, tmp_path, capsys):
    train(pixels, tmp_path / "run", "--epochs", "1")
    assert "loading" not in capsys.readouterr().out


def test_the_bar_of_a_comparison_keeps_its_count():
    """At 80 columns, with the longest name of a rule."""
    from rich.console import Console

    from softdraw.cli.screens import CompareScreen
    from softdraw.recipes.autoencoder import AUTOENCODER
    from softdraw.recipes.runs.compare import plan

    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=80, legacy_windows=False)
    screen = CompareScreen(AUTOENCODER, report, 15, Path("out"), console, lambda: None)
    [run] = plan({"GappedStraightThrough:tau=1": {}}, 1)

    class Done:
        settings, history = Settings(epochs=200), [{"valid_nelbo": 24.1234}] * 150

    screen.task = screen.bar.add_task("", total=3000)
    screen.bar.start()
    screen.advance(replace(run, index=7), Done())
    screen.bar.refresh()
    screen.bar.stop()
    assert "epoch 1550/3000" in shown.getvalue()
    assert "GappedStraightThrough:tau=1, seed 0: nELBO 24.12" in shown.getvalue()
