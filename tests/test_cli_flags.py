"""A Python caller is told about fields, the user of a command about flags; both are told the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import softdraw.recipes
from softdraw.cli import run
from softdraw.cli.flags import FLAGS, line, with_flags
from softdraw.errors import InputError
from softdraw.recipes.autoencoder import AUTOENCODER
from softdraw.recipes.autoencoder.data import load
from softdraw.recipes.autoencoder.recipe import variants
from softdraw.recipes.autoencoder.settings import Settings
from softdraw.recipes.runs.compare import plan
from softdraw.recipes.runs.ranks import Ranks
from softdraw.recipes.runs.run import run as run_recipe

SOURCES = sorted(Path(softdraw.recipes.__path__[0]).rglob("*.py"))


@pytest.mark.parametrize(
    ("fields", "options", "python", "command"),
    [
        ({"groups": 0}, ["--latents", "0x10"], "`groups` x `categories` must be", "--latents must be"),
        ({"groups": 2**24}, ["--latents", "999999x99"], "`groups` x `categories` must be at", "--latents must be at"),
        ({"tau_start": 0.0}, ["--tau", "0:0.5"], "`tau_start`:`tau_end` must be", "--tau must be"),
        ({"tau_end": 2.0}, ["--tau", "1:2"], "got `tau_start`:`tau_end` 1.0:2.0", "got --tau 1.0:2.0"),
        ({"schedule": "up"}, ["--schedule", "up"], "`schedule` must be one of", "--schedule must be one of"),
        ({"schedule": "constant"}, ["--schedule", "constant"], "give `tau_start`:`tau_end` as 1", "give --tau as"),
        ({"epochs": 0}, ["--epochs", "0"], "`epochs` must be at least 1", "--epochs must be at least 1"),
        ({"batch_size": 0}, ["--batch", "0"], "`batch_size` must be at least 1", "--batch must be at least 1"),
        ({"learning_rate": -1.0}, ["--lr", "-1"], "`learning_rate` must be positive", "--lr must be positive"),
        ({"seed": -1}, ["--seed", "-1"], "`seed` must be from 0", "--seed must be from 0"),
    ],
)  # fmt: skip
def test_settings(capsys, tmp_path, fields, options, python, command):
    with pytest.raises(InputError) as refused:
        Settings(**fields)
    assert python in str(refused.value)
    assert "--" not in str(refused.value)
    assert run(["train", "--out", str(tmp_path / "run"), *options]) == 2
    said = capsys.readouterr().err
    assert command in said
    assert "`" not in said


def test_other_arguments(capsys, tmp_path):
    """Of the data, the folder, the device and a comparison."""

    def start(resume=False, **given):
        run_recipe(AUTOENCODER, given, tmp_path / "taken", resume, Ranks(), print, print)

    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "config.json").write_text("{}")
    taken, missing = str(tmp_path / "taken"), str(tmp_path / "none.npy")
    for attempt, options, python in (
        (lambda: load(missing, 0.2, torch.Generator()), ["--data", missing], "`data` {missing}: no such file"),
        (start, ["--out", taken], "`out` {taken} holds a run already: add `resume` to continue it"),
        (lambda: start(True), ["--out", taken, "--resume"], "{taken}/config.json is not that of a run"),
    ):
        wanted = python.format(missing=missing, taken=taken)
        with pytest.raises(InputError) as refused:
            attempt()
        assert str(refused.value).startswith(wanted)
        assert run(["train", "--out", str(tmp_path / "run"), *options]) == 2
        assert capsys.readouterr().err.startswith(f"softdraw: {with_flags(wanted)}")
    with pytest.raises(InputError, match=r"^`seeds` must be at least 1"):
        plan({"a": {}}, 0)
    with pytest.raises(InputError, match=r"^`rules` names ZGR twice"):
        variants(["zgr", "ZGR"])


def test_the_library_knows_no_flag_and_the_table_knows_every_name():
    named = set()
    for source in SOURCES:
        text = source.read_text()
        assert not re.findall(r"(?<![\w`-])--[a-z]\w+", text), source
        named |= set(re.findall(r"(?<![`:])`(\w+)`(?!`)", text))
    assert {"groups", "out", "resume", "learning_rate", "data"} <= named <= FLAGS.keys()


def test_names_become_flags():
    assert with_flags("`data` x: `no` such; lower `learning_rate`") == "--data x: `no` such; lower --lr"
    assert with_flags("`tau_start`:`tau_end` and `groups` x `categories`, `tau_end`") == "--tau and --latents, --tau"
    assert with_flags("`epochs` x `seed`") == "--epochs x --seed"
    assert line("a `rule`\n  is bad") == "softdraw: a --rule is bad"
