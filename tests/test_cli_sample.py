"""`softdraw sample`: what it prints is what the functions give, and a bad input is one line."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
import torch

import softdraw as library
from softdraw.cli import run as softdraw

LOGITS = [[1.0, 2.0, 3.0], [2.0, 1.0, 0.5]]
TEXT = "1,2,3; 2,1,0.5"


def numbers(printed, columns):
    """The table's lines: row, draw, then so many values."""
    pattern = r"^ +(\d+) +(\d+)" + r" +(-?[\d.]+)" * columns + "$"
    return [[float(v) for v in found] for found in re.findall(pattern, printed, re.MULTILINE)]


@pytest.mark.parametrize("hard", [False, True])
def test_samples_are_those_of_the_function(capsys, hard):
    assert softdraw(["sample", TEXT, "--tau", "0.7", "--seed", "5", *(["--hard"] if hard else [])]) == 0
    y = library.gumbel_softmax(torch.tensor(LOGITS, dtype=torch.float64), 0.7, hard, seed=5)
    table = np.array(numbers(capsys.readouterr().out, 3))
    np.testing.assert_array_equal(table[:, :2], [[0, 0], [1, 0]])
    np.testing.assert_allclose(table[:, 2:], y, atol=5.1e-5)


def test_frequencies_are_those_of_the_law(capsys):
    """Counts of the same draws as the samples', and every z below 4: at one seed, so it holds always or never."""
    assert softdraw(["sample", TEXT, "--draws", "10000", "--hard"]) == 0
    printed = capsys.readouterr().out
    found = re.findall(r"^ +(\d) +(\d) +([\d.]+) +([\d.]+) +([\d.]+) +([-+][\d.]+)$", printed, re.MULTILINE)
    rows = np.array(found, dtype=float).reshape(2, 3, 6)
    exact = torch.tensor(LOGITS, dtype=torch.float64).softmax(-1).numpy()
    x = torch.tensor(LOGITS, dtype=torch.float64).expand(10000, 2, 3)
    index = library.gumbel_max(x, seed=0)
    counted = torch.stack([(index == k).double().mean(0) for k in range(3)], -1).numpy()
    np.testing.assert_allclose(rows[..., 2], counted, atol=1e-9)
    np.testing.assert_allclose(rows[..., 3], exact, atol=5.1e-6)
    np.testing.assert_allclose(rows[..., 4], np.sqrt(exact * (1 - exact) / 10000), atol=5.1e-6)
    assert np.abs(rows[..., 5]).max() < 4
    shown = np.array(numbers(printed.partition("frequencies")[0], 3))
    assert len(shown) == 20
    for row, draw, *one_hot in shown.astype(int).tolist():
        assert one_hot[index[draw, row]] == 1


def test_files_and_standard_input_are_read_alike(capsys, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.array(LOGITS))
    (tmp_path / "x.csv").write_text("1,2,3\n2,1,0.5\n")
    outputs = []
    for source in (TEXT, str(tmp_path / "x.npy"), str(tmp_path / "x.csv"), "-"):
        monkeypatch.setattr("sys.stdin", io.StringIO("1 2 3\n2 1 0.5\n"))
        assert softdraw(["sample", source]) == 0
        outputs.append(capsys.readouterr().out)
    assert len(set(outputs)) == 1


def test_logits_may_be_negative_and_a_class_barred(capsys):
    assert softdraw(["sample", "-1,-inf,2", "--draws", "100"]) == 0
    assert re.search(r"^ +0 +1 +0\.00000 +0\.00000 +0\.00000 +-$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["1,2", "--tau", "0"], "--tau must be positive"),
        (["1,2", "--tau", "nan"], "--tau must be positive"),
        (["1,2", "--draws", "0"], "--draws must be from 1"),
        (["1,2", "--seed", str(2**64)], "must fit in 64 bits"),
        (["1,two"], "neither numbers nor a file"),
        (["none.npy"], "neither numbers nor a file"),
        (["--hrad"], "neither numbers nor a file"),
        (["1,2;3"], "rows of 2, 1 numbers"),
        ([";"], "holds no logits"),
        (["-"], "standard input holds no logits"),
        (["1,nan"], "NaN or +inf"),
        (["1,inf"], "NaN or +inf"),
        (["-inf,-inf"], "at least one class"),
        (["broken.npy"], "cannot be read"),
        (["cube.npy"], "must be (rows, classes)"),
    ],
)
def test_bad_inputs(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY junk")
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2)))
    assert softdraw(["sample", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("softdraw: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err


def test_logits_longer_than_a_file_name_may_be(capsys):
    assert softdraw(["sample", ",".join(["0.125"] * 100), "--hard"]) == 0
    assert capsys.readouterr().out.count("\n") >= 3
