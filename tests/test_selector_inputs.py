"""What the recipe that chooses features refuses: options, tables, a missing scikit-learn, several processes."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from softdraw.cli import run as command
from softdraw.errors import InputError
from softdraw.recipes.runs.ranks import Ranks
from softdraw.recipes.selector import data
from softdraw.recipes.selector.loop import Trainer
from softdraw.recipes.selector.settings import Settings


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "table.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(40, 12)), y=np.arange(40) % 3)
    return path


def options(table, out, *more):
    return ["train", "selector", "--data", str(table), "--sizes", "2,3", "--out", str(out), *more]


def test_without_scikit_learn_the_error_says_what_to_install(table, tmp_path, capsys, monkeypatch):
    for name in ("sklearn", "sklearn.feature_selection", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    assert command(["train", "selector", "--out", str(tmp_path / "a")]) == 2
    said = capsys.readouterr().err
    assert said == "softdraw: the data digits needs scikit-learn: pip install 'softdraw[cli]', or give --data\n"
    assert command(options(table, tmp_path / "b")) == 2
    assert "the baseline of mutual information needs scikit-learn" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--sizes", "0"], "--sizes must be numbers of features from 1 on, as 5,10,20, got '0'"),
        (["--sizes", "3,2"], "--sizes must go up, got '3,2': write 2,3"),
        (["--sizes", "2,13"], "--sizes 2,13 ask for more features than the 12 of"),
        (["--rules", "exact"], "--rules names Exact, which enumerates the subsets: choose from straight-through"),
        (["--rules", "rebar"], "--rules names Rebar, which needs"),
        (["--rules", "zgr,zgr"], "--rules names ZGR twice: leave one out"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--tau", "0.1:10"], "--tau must be from 1e-30 to 1e30 and go down, got 0.1:10.0"),
        (["--lr", "nan"], "--lr must be positive"),
        (["--data", "nowhere"], "--data nowhere: no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options(table, tmp_path, capsys, more, message):
    assert command(options(table, tmp_path / "run", *more)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"softdraw: {message}")
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros((12, 3))}, "is not an .npz file with the arrays x"),
        ({"x": np.zeros((12, 3)), "y": np.zeros(11, int)}, r"they must be \(N, n >= 2\) and \(N,\)"),
        ({"x": np.zeros((4, 3)), "y": np.zeros(4, int)}, "has 4 rows: at least 10 are needed"),
        ({"x": np.full((12, 3), np.nan), "y": np.arange(12) % 2}, "has 36 NaN or infinite features"),
        ({"x": np.zeros((12, 3)), "y": np.ones(12, int)}, "has one class, 1: at least two are needed"),
        ({"x": np.zeros((12, 3)), "y": np.arange(12)}, "has 12 classes in 12 rows: y must be classes, not values"),
        ({"x": np.zeros((12, 3)), "y": np.zeros(12)}, "y integers or text"),
    ],
    ids=["names", "shapes", "rows", "NaN", "one class", "values", "floats"],
)
def test_bad_tables(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InputError, match=message):
        data.load(str(tmp_path / "bad.npz"))


def test_one_process_alone(table):
    with pytest.raises(InputError, match="start the command without torchrun"):
        Trainer(Settings(data=str(table), sizes="2"), torch.device("cpu"), Ranks(0, 2))
