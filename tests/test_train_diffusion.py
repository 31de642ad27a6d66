"""`softdraw train diffusion` from end to end: that it learns, and that no kill and no number of ranks changes it."""

from __future__ import annotations

import io
import itertools
import json
import re

import pytest
import torch
from processes import killed, torchrun

from softdraw.cli import run as softdraw
from softdraw.recipes.diffusion import report
from softdraw.recipes.diffusion.loop import Trainer
from softdraw.recipes.diffusion.settings import Settings
from softdraw.recipes.runs.ranks import Ranks
from softdraw.recipes.runs.run import Start

pytestmark = pytest.mark.xdist_group("diffusion")
SMALL = ["--length", "16", "--width", "32", "--layers", "1", "--epochs", "5", "--lr", "0.01", "--texts", "2"]
WORDS = ("the cat ", "sat on ", "a mat. ", "one dog ", "ate it. ", "so what? ")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """3,000 characters of six words in any order: what follows a letter is mostly certain, given the two before it."""
    order = torch.randint(6, (400,), generator=torch.Generator().manual_seed(0)).tolist()
    path = tmp_path_factory.mktemp("data") / "words.txt"
    path.write_text("".join(WORDS[i] for i in order))
    return str(path)


def command(data, out, *options):
    return ["train", "diffusion", *SMALL, "--data", data, "--out", str(out), *options]


def records(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def texts(printed):
    return printed[printed.index("\ntext 0\n") :]


@pytest.fixture(scope="module")
def whole(text, tmp_path_factory):
    """A run that nothing interrupted, and what it wrote."""
    out = tmp_path_factory.mktemp("run") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", said := io.StringIO())
        assert softdraw(command(text, out)) == 0
    return out, said.getvalue()


def test_a_run_learns_and_writes_its_files(whole):
    out, printed = whole
    assert {f.name for f in out.iterdir()} == {"config.json", "metrics.jsonl", "checkpoint.pt", "curves.png"}
    history = records(out)
    assert [record["epoch"] for record in history] == list(range(1, 6))
    assert history[-1]["valid_bound"] < history[0]["valid_bound"] - 0.2
    assert 0 < history[-1]["valid_error"] < 0.2
    unigrams, bound = (float(re.search(rf"{name} +│ +(\d\.\d+)", printed)[1]) for name in ("unigrams", "at most"))  # pyright: ignore
    assert bound == pytest.approx(history[-1]["valid_bound"], abs=5e-4)
    assert bound < unigrams - 0.2
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    config = json.loads((out / "config.json").read_text())
    assert re.fullmatch(r"[0-9a-f]{64}, \d+ characters", config["data_sha256"])


def test_output_without_a_terminal_is_plain(whole, text):
    out, printed = whole
    assert not re.search("[\x1b\r]", printed)
    assert max(map(len, printed.replace(text, "words.txt").replace(str(out), "runs/words").splitlines())) <= 80
    assert re.findall(r"^text 0, (\d+) of 16 characters written$", printed, re.MULTILINE) == ["0", "4", "8", "12"]
    stages = re.findall(r"written\n  (.{16})$", printed, re.MULTILINE)
    assert [stage.count("░") for stage in stages] == [16, 12, 8, 4]
    assert "░" not in texts(printed)
    for before, after in itertools.pairwise(stages):
        assert all(a in ("░", b) for a, b in zip(before, after, strict=True))  # what is written stays


def test_killed_and_resumed_equals_uninterrupted(whole, text, tmp_path, capsys):
    """In the writing of the third checkpoint. The metrics, the weights and the texts are the same to the last bit."""
    arguments = command(text, tmp_path / "run", "--resume")
    killed(2 + 4 * 2 + 3, arguments)
    assert len(records(tmp_path / "run")) == 3  # ahead of the checkpoint
    assert softdraw(arguments) == 0
    for name in ("metrics.jsonl", "config.json"):
        assert (tmp_path / "run" / name).read_bytes() == (whole[0] / name).read_bytes()
    weights = [torch.load(out / "checkpoint.pt", weights_only=True)["model"] for out in (tmp_path / "run", whole[0])]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert texts(capsys.readouterr().out) == texts(whole[1])


@pytest.mark.long
def test_two_ranks_are_one_to_the_last_character(whole, text, tmp_path):
    """Not nearly: every metric and every text. A rank has a part of a batch; the last batch of an epoch has one."""
    ended = torchrun(2, command(text, tmp_path / "two"))
    for name in ("metrics.jsonl", "config.json"):
        assert (tmp_path / "two" / name).read_bytes() == (whole[0] / name).read_bytes()
    assert texts(ended.stdout) == texts(whole[1])


def test_a_finished_run_writes_again(whole, text, capsys):
    """Text 0 is the same alone; other options of writing give other texts and are none of the run's settings."""
    out = str(whole[0])
    before = (whole[0] / "metrics.jsonl").read_bytes()
    said = []
    for options in (["--texts", "1"], ["--texts", "1", "--temperature", "0", "--order", "inf", "--steps", "3"]):
        assert softdraw(["train", "diffusion", "--out", out, "--resume", *options]) == 0
        said.append(texts(capsys.readouterr().out))
    assert texts(whole[1]).startswith(said[0])
    assert said[1] != said[0]
    assert softdraw(["train", "diffusion", "--out", out, "--resume", "--texts", "0"]) == 0
    assert "text 0" not in capsys.readouterr().out
    assert (whole[0] / "metrics.jsonl").read_bytes() == before


def test_experts_are_balanced_and_the_table_says_so(text, tmp_path, capsys):
    """The shares are those of the record: of four, two different ones a character. A finished run writes again."""
    out = tmp_path / "run"
    assert softdraw(command(text, out, "--experts", "4", "--epochs", "2")) == 0
    printed = capsys.readouterr().out
    assert "1 layers of width 32, 4 experts each, " in printed
    assert max(map(len, printed.replace(text, "words.txt").replace(str(out), "").splitlines())) <= 80
    last = records(out)[-1]
    assert re.search(rf"│ +{last['least_load']:.0%} to {last['most_load']:.0%} │", printed)
    assert 0.05 < last["least_load"] <= 0.25 <= last["most_load"] < 0.5
    assert softdraw(["train", "diffusion", "--out", str(out), "--resume", "--texts", "2"]) == 0
    assert texts(capsys.readouterr().out) == texts(printed)
    assert "has experts 4, not 2" in refused(capsys, "--out", out, "--resume", "--experts", "2")


def refused(capsys, *arguments):
    assert softdraw(["train", "diffusion", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(r"softdraw: .+\n", printed.err)
    return printed.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--length", "1"], "--length must be from 2 to 65536"),
        (["--width", "48"], "--width must be a multiple of 32"),
        (["--layers", "0"], "--layers must be from 1 to 1000, got 0"),
        (["--experts", "0"], "--experts must be from 1 to 1000, got 0"),
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--batch", "0"], "--batch must be at least 1"),
        (["--lr", "nan"], "--lr must be positive"),
        (["--seed", "-1"], "--seed must be from 0"),
        (["--device", "abacus"], "--device 'abacus' is not a device"),
        (["--texts", "-1"], "--texts must be from 0"),
        (["--steps", "0"], "--steps must be at least 1, got 0"),
        (["--temperature", "-0.5"], "--temperature must be at least 0 and finite, got -0.5"),
        (["--temperature", "nan"], "--temperature must be at least 0"),
        (["--order", "nan"], "--order must be at least 0, got nan"),
        (["--latents", "3x3"], "see softdraw --help"),
        (["--length", "4000"], "which are 0 sequences of --length 4000: at least 20 are needed"),
    ],
)
def test_bad_options(capsys, text, tmp_path, options, message):
    assert message in refused(capsys, "--data", text, "--out", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_bad_text(capsys, text, tmp_path, whole):
    out = ["--out", tmp_path / "run"]
    (tmp_path / "latin").write_bytes("né".encode("latin-1") * 999)
    assert "is not text in UTF-8" in refused(capsys, "--data", tmp_path / "latin", *out)
    assert "cannot be read (No such file or directory)" in refused(capsys, "--data", tmp_path / "none", *out)
    assert "cannot be read (Is a directory)" in refused(capsys, "--data", tmp_path, *out)
    assert "cannot be read (embedded null byte)" in refused(capsys, "--data", "a\0b", *out)
    (tmp_path / "empty").touch()
    assert "has 0 characters" in refused(capsys, "--data", tmp_path / "empty", *out)
    (tmp_path / "other").write_text("other words " * 200)
    other = ["--data", tmp_path / "other", "--out", whole[0], "--resume"]
    assert "are not those of the run" in refused(capsys, *other)
    assert "has width 32, not 64" in refused(capsys, "--out", whole[0], "--resume", "--width", "64")


@pytest.fixture
def trainer(text):
    settings = Settings(data=text, length=16, width=32, layers=1, epochs=2)
    trainer = Trainer(settings, torch.device("cpu"), Ranks())
    trainer.history.append({"epoch": 1, "valid_bound": 9.0, "valid_error": 0.1})
    return trainer


def test_a_diverged_run_fails_and_one_that_learned_little_says_so(trainer):
    """The limit is the logarithm of the alphabet's size, which costs a law that knows nothing else."""
    limit = torch.tensor(float(len(trainer.text.alphabet))).log()
    for bound, failed, remark in ((limit + 1e-3, True, False), (limit - 1e-3, False, True), (0.5, False, False)):
        trainer.history[-1]["valid_bound"] = float(bound)
        trainer.seconds = {"training": 1.0, "total": 1.0}
        assert (report.failure(trainer) is not None) == failed
        assert any("No better than counting pairs" in line for line in report.remarks(trainer)) == remark


@pytest.mark.parametrize(
    ("rate", "code", "why"),
    [("100", 1, "nats after epoch 1, and 2.77 if all"), ("1e38", 2, "worse than counting characters")],
)
def test_a_run_that_diverges_ends_with_one_line_and_no_text(text, tmp_path, capsys, rate, code, why):
    assert softdraw(command(text, tmp_path / "run", "--lr", rate, "--epochs", "1")) == code
    printed = capsys.readouterr()
    assert re.fullmatch(rf"softdraw: .*the run diverged.*{why}.*: lower --lr\n", printed.err)
    assert "text 0" not in printed.out
    assert max(map(len, printed.out.replace(text, "").replace(str(tmp_path), "").splitlines())) <= 80


def test_what_an_extension_says(trainer):
    """Two epochs of the learning rate's line, then the line of ten: by hand."""
    steps = trainer.steps
    said = report.extension(trainer, Start(done=1, extended_from=1))
    before = 3e-3 * min(1, steps / 30) * (1 - (steps - 1) / steps)
    after = 3e-3 * min(1, (steps + 1) / 30) * 0.5
    assert said.replace("\n", " ").endswith(f"so it goes on from {after:.3g} (it was {before:.3g})")
    assert [trainer.settings.rate(step, 100) for step in (0, 29, 99)] == pytest.approx([1e-4, 3e-3 * 0.71, 3e-5])


def test_the_bar_moves_within_an_epoch_and_counts_whole_ones(trainer):
    from pathlib import Path

    from rich.console import Console

    from softdraw.cli.screens import TrainScreen

    shown, seen = io.StringIO(), []
    console = Console(file=shown, force_terminal=True, width=80, legacy_windows=False)
    trainer.history.clear()
    screen = TrainScreen(report, "softdraw train diffusion", Path("out"), console, lambda: None)
    with screen:
        screen.start(trainer, Start(done=0, extended_from=None))
        told = trainer.on_step
        trainer.on_step = lambda share: (told(share), seen.append(screen.bar.tasks[0].completed), screen.bar.refresh())
        trainer.epoch()
    assert seen == [(i + 1) / trainer.steps for i in range(trainer.steps)]
    assert set(re.findall(r"epoch \d/\d", shown.getvalue())) == {"epoch 0/2", "epoch 1/2"}


def test_a_terminal_shows_text_as_it_is_written():
    from rich.console import Console

    from softdraw.cli.canvas import Canvas

    shown = io.StringIO()
    plain = {"highlight": False, "markup": False, "legacy_windows": False}  # as the command's own
    with Canvas(Console(file=shown, force_terminal=True, width=80, **plain), 4) as canvas:
        canvas.update([canvas.blank * 4], 0)
        canvas.update([f"a{canvas.blank}b\n"], 3)
        canvas.update(["ac[b"], 4)
    printed = shown.getvalue()
    assert canvas.blank * 4 in printed
    assert f"a{canvas.blank}b " in printed  # a line's end keeps its place
    assert printed.endswith("\ntext 0\n  ac[b\n")
    assert "\x1b[?25h" in printed  # the cursor is there again
