"""`softdraw train` from end to end: its files, that it learns, and that no kill and no number of ranks changes it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from processes import killed, torchrun
from sklearn.datasets import load_digits

from softdraw.cli import run as softdraw

SMALL = ["--latents", "4x5", "--batch", "32"]


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


def command(data, out, *options):
    return [*SMALL, "--data", data, "--out", str(out), *options]


def records(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(pixels, tmp_path_factory):
    """A run of 30 epochs that nothing interrupted."""
    out = tmp_path_factory.mktemp("run") / "whole"
    assert softdraw(["train", *command(pixels, out, "--epochs", "30")]) == 0
    return out


@pytest.mark.xdist_group("train")
def test_a_run_learns_and_writes_its_files(whole):
    pictures = {"reconstructions.png", "samples.png", "codes.png", "curves.png"}
    assert {f.name for f in whole.iterdir()} == {"config.json", "metrics.jsonl", "checkpoint.pt"} | pictures
    history = records(whole)
    assert [record["epoch"] for record in history] == list(range(1, 31))
    assert history[-1]["step"] == 30 * 2  # 48 images in batches of 32
    assert history[-1]["tau"] == 0.5
    assert history[-1]["valid_nelbo"] < history[0]["valid_nelbo"] - 1
    # Two kinds of image, one bit: the code must carry at least most of ln 2 to tell them apart
    assert history[-1]["valid_kl"] > 0.5
    assert history[-1]["valid_shuffled_nelbo"] > history[-1]["valid_nelbo"] + 1
    for record in history:
        assert record["valid_nelbo"] == pytest.approx(record["valid_reconstruction"] + record["valid_kl"], rel=1e-12)
    for picture in whole.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")


# An fsync is half of a write: 1 is in the writing of config.json, 3 and 4 of the first metrics, 5 and 6 of the first
# checkpoint; each epoch adds four.


@pytest.mark.xdist_group("train")
@pytest.mark.parametrize("writes", [1, 5, 49, 2 + 4 * 30 + 1])
def test_killed_and_resumed_equals_uninterrupted(whole, pixels, tmp_path, writes):
    """In the first write of all, in the first checkpoint, with metrics ahead of the checkpoint, in a picture."""
    out = tmp_path / "run"
    arguments = ["train", *command(pixels, out, "--epochs", "30", "--resume")]
    killed(writes, arguments)
    assert softdraw(arguments) == 0
    for name in ("metrics.jsonl", "config.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert not list(out.glob("*.part"))


@pytest.mark.xdist_group("train")
def test_torn_writes_are_cut_off(whole, pixels, tmp_path):
    """What a kill between two writes leaves: metrics ahead of the checkpoint, and parts of files."""
    out = tmp_path / "run"
    assert softdraw(["train", *command(pixels, out, "--epochs", "30")]) == 0
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 31}\n{"epo')
    (out / "checkpoint.pt.part").write_bytes(b"half a checkpoint")
    (out / "config.json.part").write_bytes(b"{")
    assert softdraw(["train", *command(pixels, out, "--resume")]) == 0
    assert (out / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


@pytest.mark.xdist_group("train")
def test_two_ranks_train_as_one(pixels, tmp_path):
    """Batches of 47 and 1 over 2 ranks: an uneven and an empty slice. Float sums differ in their order only; a one-hot
    draw that differed would move the loss by far more than that."""
    options = ["--hard", "--epochs", "3", "--batch", "47"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert softdraw(["train", *command(pixels, one, *options)]) == 0
    torchrun(2, ["train", *command(pixels, two, *options)])
    assert (one / "config.json").read_bytes() == (two / "config.json").read_bytes()
    for a, b in zip(records(one), records(two), strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert b[name] == pytest.approx(a[name], rel=1e-4), name


@pytest.mark.xdist_group("train")
def test_a_bad_input_ends_every_rank_with_one_line(pixels, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    ended = torchrun(2, ["train", *command(pixels, tmp_path / "full")], check=False)
    ours = [line for line in ended.stderr.splitlines() if line.startswith("softdraw: ")]
    assert len(ours) == 1
    assert "holds other files (notes.txt)" in ours[0]
    assert "Traceback" not in ended.stderr.partition("ChildFailedError")[0].partition("Traceback")[0]
    assert re.search(r"exitcode\s*:\s*2", ended.stderr)


@pytest.mark.xdist_group("train")
def test_output_without_a_terminal_is_plain(pixels, tmp_path, capsys):
    assert softdraw(["train", *command(pixels, tmp_path / "a", "--epochs", "20", "--hard")]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\r" not in printed
    assert len(re.findall(r"^epoch \d+/20 +held-out nELBO", printed, re.MULTILINE)) == 10
    for row in ("negative ELBO", "reconstruction", "KL", "shuffled", "difference", "perplexity", "active codes"):
        assert row in printed
    assert "samples per second" in printed


def test_large_images_do_not_end_in_one_code(tmp_path):
    """Mostly dark digits. From a grey start, every latent has one code for all images after a few steps."""
    images = np.kron(load_digits().images[:900], np.ones((3, 3)))
    np.save(tmp_path / "large.npy", np.pad(images, ((0, 0), (2, 2), (2, 2))))
    out = tmp_path / "run"
    assert softdraw(["train", "--data", str(tmp_path / "large.npy"), "--epochs", "4", "--out", str(out)]) == 0
    last = records(out)[-1]
    assert last["valid_perplexity"] > 2  # 6.5 of 10 here; 1.0 from a grey start
    assert last["valid_nelbo"] < last["valid_shuffled_nelbo"] - 30  # equal where all images have one code
