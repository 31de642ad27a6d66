"""Every bad input of `softdraw train`: one line, exit code 2, nothing written."""

from __future__ import annotations

import fcntl
import gzip
import os
import struct

import numpy as np
import pytest
import torch

from softdraw.cli import run as softdraw

GOOD = np.random.default_rng(0).uniform(0, 1, (20, 3, 4)).astype(np.float32)


@pytest.fixture
def data(tmp_path):
    np.save(tmp_path / "good.npy", GOOD)
    return str(tmp_path / "good.npy")


def refused(capsys, *arguments):
    """The one line with which the command ends."""
    assert softdraw(["train", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("softdraw: ")
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--latents", "20"], "--latents must be groups x categories"),
        (["--latents", "axb"], "got 'axb'"),
        (["--latents", "0x10"], "at least 1x2, got 0x10"),
        (["--latents", "5x1"], "at least 1x2, got 5x1"),
        (["--tau", "0"], "--tau must be from 1e-38 to 1e38"),
        (["--tau", "-1"], "--tau must be from 1e-38 to 1e38"),
        (["--tau", "1:0"], "--tau must be from 1e-38 to 1e38"),
        (["--tau", "nan"], "--tau must be from 1e-38 to 1e38"),
        (["--tau", "warm"], "got 'warm'"),
        (["--schedule", "sideways"], "--schedule must be one of constant"),
        (["--schedule", "constant"], "holds one tau"),
        (["--tau", "0.5:1"], "goes down"),
        (["--device", "abacus"], "--device 'abacus' is not a device"),
        (["--epochs", "0"], "at least 1"),
        (["--batch", "0"], "at least 1"),
        (["--lr", "0"], "--lr must be positive"),
        (["--seed", "-1"], "--seed must be from 0"),
        (["--colour", "red"], "see softdraw --help"),
        (["--epochs", "many"], "see softdraw --help"),
    ],
)
def test_bad_options(capsys, data, tmp_path, options, message):
    assert message in refused(capsys, "--data", data, "--out", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def nan_in(images, where):
    images = images.copy()
    images[where] = np.nan
    return images


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (nan_in(GOOD, (7, 1, 2)), "1 NaN or infinite pixels, the first in image 7"),
        (GOOD[0, 0], "shape (4,): images must be (N, H, W) or (N, D)"),
        (GOOD[..., None, None], "images must be (N, H, W) or (N, D)"),
        (GOOD[:, :0], "images must be"),
        (GOOD[:5], "at least 10 are needed"),
        (GOOD - 0.5, "pixels below 0"),
        (GOOD.astype(str), "pixels must be numbers"),
        (GOOD.astype(complex), "pixels must be numbers"),
    ],
)
def test_bad_pixels(capsys, tmp_path, array, message):
    np.save(tmp_path / "bad.npy", array)
    assert message in refused(capsys, "--data", tmp_path / "bad.npy", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("broken.npy", b"\x93NUMPY junk", "cannot be read"),
        ("broken.npz", b"PK junk", "cannot be read"),
        ("broken.gz", b"not gzip", "cannot be read"),
        ("picture.jpg", b"\xff\xd8\xff", "is not an idx file"),
        ("short-idx3-ubyte", struct.pack(">4B3I", 0, 0, 8, 3, 20, 3, 4) + bytes(9), "holds 9 values: is it whole?"),
    ],
)
def test_malformed_files(capsys, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert message in refused(capsys, "--data", tmp_path / name, "--out", tmp_path / "run")


def test_missing_and_ambiguous_files(capsys, tmp_path):
    assert "no such file" in refused(capsys, "--data", tmp_path / "none.npy", "--out", tmp_path / "run")
    np.savez(tmp_path / "two.npz", a=GOOD, b=GOOD)
    assert "holds the arrays a, b" in refused(capsys, "--data", tmp_path / "two.npz", "--out", tmp_path / "run")


def test_folders_are_never_overwritten(capsys, data, tmp_path):
    out = tmp_path / "run"
    arguments = ["--data", data, "--out", out, "--epochs", "1", "--latents", "2x2"]
    assert softdraw(["train", *map(str, arguments)]) == 0
    capsys.readouterr()
    before = {f.name: (f.read_bytes(), f.stat().st_mtime_ns) for f in out.iterdir()}
    assert "add --resume" in refused(capsys, *arguments)
    assert "has seed 0, not 1" in refused(capsys, *arguments, "--resume", "--seed", "1")
    assert "has groups 2, not 3" in refused(capsys, "--out", out, "--resume", "--latents", "3x2")
    np.save(tmp_path / "other.npy", GOOD[::-1])
    assert "are not those of the run" in refused(capsys, "--out", out, "--resume", "--data", tmp_path / "other.npy")
    assert before == {f.name: (f.read_bytes(), f.stat().st_mtime_ns) for f in out.iterdir()}

    (out / "checkpoint.pt").write_bytes(b"half")
    assert "checkpoint.pt cannot be read" in refused(capsys, *arguments, "--resume")
    (out / "config.json").write_text('{"colour": 1}')
    assert "is not that of a run" in refused(capsys, *arguments, "--resume")
    (out / "config.json").unlink()
    assert "no config.json" in refused(capsys, *arguments, "--resume")


def test_unusable_folders(capsys, data, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    assert "cannot be used (Not a directory)" in refused(capsys, "--data", data, "--out", tmp_path / "file")
    for resume in ([], ["--resume"]):
        under = refused(capsys, "--data", data, "--out", tmp_path / "file" / "run", *resume)
        assert "cannot be" in under
        assert "(thesis.tex)" in refused(capsys, "--data", data, "--out", tmp_path / "mine", *resume)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_diverging_run_says_so(capsys, data, tmp_path):
    arguments = ["train", "--data", data, "--out", str(tmp_path / "run"), "--lr", "1e30", "--epochs", "3"]
    assert softdraw(arguments) == 2
    assert "lower --lr" in capsys.readouterr().err


def test_formats_hold_the_same_images(tmp_path):
    """.npy, .npz, idx and idx.gz of the same bytes: the same pixels, divided by the largest."""
    import torch

    from softdraw.recipes.autoencoder.data import load

    raw = np.random.default_rng(1).integers(0, 256, (30, 3, 4), dtype=np.uint8)
    idx = struct.pack(">4B3I", 0, 0, 8, 3, *raw.shape) + raw.tobytes()
    np.save(tmp_path / "a.npy", raw)
    np.savez(tmp_path / "a.npz", x_train=raw, y_train=np.zeros(30))
    (tmp_path / "a-idx3-ubyte").write_bytes(idx)
    (tmp_path / "a-idx3-ubyte.gz").write_bytes(gzip.compress(idx))
    wanted = raw.reshape(30, 12).astype(np.float32) / raw.max()
    for name in ("a.npy", "a.npz", "a-idx3-ubyte", "a-idx3-ubyte.gz"):
        images = load(str(tmp_path / name), 0.2, torch.Generator().manual_seed(0))
        assert images.shape == (3, 4)
        assert (len(images.train), len(images.valid)) == (24, 6)
        both = torch.cat([images.valid, images.train]).numpy()
        np.testing.assert_array_equal(both, wanted[torch.randperm(30, generator=torch.Generator().manual_seed(0))])


@pytest.mark.parametrize("config", ["{}", "[]", '""', "null", '{"seed": 1}'])
def test_a_config_that_is_not_one_is_refused_and_nothing_is_lost(capsys, data, tmp_path, config):
    out = tmp_path / "run"
    arguments = ["--data", data, "--out", out, "--epochs", "1", "--latents", "2x2"]
    assert softdraw(["train", *map(str, arguments)]) == 0
    capsys.readouterr()
    (out / "config.json").write_text(config)
    before = {f.name: f.read_bytes() for f in out.iterdir()}
    assert "give another" in refused(capsys, *arguments, "--resume")
    assert {f.name: f.read_bytes() for f in out.iterdir()} == before


def test_an_edited_checkpoint_is_refused(capsys, data, tmp_path):
    out = tmp_path / "run"
    arguments = ["--data", data, "--out", out, "--epochs", "1", "--latents", "2x2"]
    assert softdraw(["train", *map(str, arguments)]) == 0
    capsys.readouterr()
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    del state["model"]
    torch.save(state, out / "checkpoint.pt")
    assert "is not of this run" in refused(capsys, *arguments, "--resume")


def test_a_folder_in_use_and_pictures_of_the_users_own_are_left_alone(capsys, data, tmp_path):
    out = tmp_path / "run"
    arguments = ["--data", data, "--out", out, "--epochs", "1", "--latents", "2x2"]
    assert softdraw(["train", *map(str, arguments)]) == 0
    capsys.readouterr()
    held = os.open(out, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert "is in use by another run" in refused(capsys, *arguments, "--resume")
    os.close(held)
    own = tmp_path / "own"
    own.mkdir()
    (own / "curves.png").write_bytes(b"mine")
    assert "holds other files" in refused(capsys, "--data", data, "--out", own, "--resume")
    assert (own / "curves.png").read_bytes() == b"mine"


def test_names_with_brackets_are_not_markup(capsys, tmp_path):
    folder = tmp_path / "x["
    folder.mkdir()
    np.save(folder / "b].npy", GOOD)
    assert (
        softdraw(["train", "--data", str(folder / "b].npy"), "--epochs", "1", "--out", str(tmp_path / "[red]o")]) == 0
    )
    assert "[red]o" in capsys.readouterr().out


def test_world_size_without_torchrun(capsys, data, tmp_path, monkeypatch):
    for size in ("2", "abc", "", "0"):
        monkeypatch.setenv("WORLD_SIZE", size)
        assert "torchrun" in refused(capsys, "--data", data, "--out", tmp_path / "run")
