"""`softdraw train` takes a recipe: by its name, with its own options; without one it is the autoencoder."""

from __future__ import annotations

import re

import numpy as np
import pytest

from softdraw.cli import run as softdraw
from softdraw.cli.train import RECIPES

NAMES = [recipe.__name__ for recipe in RECIPES]


def refused(capsys, *arguments):
    """The one line with which the command ends."""
    assert softdraw(["train", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(r"softdraw: .+\n", printed.err)
    return printed.err


def helped(capsys, *arguments):
    assert softdraw([*arguments, "--help"]) == 0
    return capsys.readouterr().out


def test_without_a_name_it_is_the_autoencoder(capsys, tmp_path):
    """The same options, what is printed but for seconds, and files."""
    np.save(tmp_path / "images.npy", np.random.default_rng(0).uniform(0, 1, (20, 3, 4)))
    options = ["--data", str(tmp_path / "images.npy"), "--latents", "2x2", "--epochs", "2"]
    said, files = [], []
    for name in ([], ["autoencoder"]):
        out = tmp_path / "-".join(["run", *name])
        assert softdraw(["train", *name, *options, "--out", str(out)]) == 0
        printed = capsys.readouterr().out.replace(str(out), "OUT")
        said.append(re.sub(r"^.*samples per second$", "", printed, flags=re.MULTILINE))
        files.append((out / "metrics.jsonl").read_bytes())
    assert said[0] == said[1]
    assert "held-out nELBO" in said[0]
    assert files[0] == files[1]


def test_help_names_every_recipe_and_the_options_of_the_first(capsys):
    whole, own = helped(capsys, "train"), helped(capsys, "train", "autoencoder")
    for name in NAMES:
        assert re.search(rf"^  {name} ", whole, re.MULTILINE)
        assert f"softdraw train {name} [OPTIONS]" in helped(capsys, "train", name)
    options = re.findall(r"^  (--.*)$", own, re.MULTILINE)
    assert len(options) == 14
    assert re.findall(r"^  (--.*)$", whole, re.MULTILINE) == options


@pytest.mark.parametrize("option", [["--epochs", "3"], ["--seed", "0"], ["--soft"], ["--resume"]])
def test_options_before_the_name_are_refused_and_not_forgotten(capsys, option):
    for name in NAMES:
        wanted = f"softdraw: options stand after the recipe: softdraw train {name} [OPTIONS]\n"
        assert refused(capsys, *option, name) == wanted


def test_what_is_no_recipe_is_refused(capsys):
    assert "No such command 'autoencodr'" in refused(capsys, "autoencodr")
    assert "(digits)" in refused(capsys, "autoencoder", "digits")
