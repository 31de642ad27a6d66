"""Runs of any recipe, on one that has nothing to do with images: trained, killed, resumed, extended and compared."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import gate_recipe
import numpy as np
import pytest
import torch
from gate_recipe import GATE

from softdraw.errors import InputError
from softdraw.recipes.runs import figures
from softdraw.recipes.runs.compare import compare, plan
from softdraw.recipes.runs.ranks import Ranks
from softdraw.recipes.runs.run import Start, run

ROOT = Path(__file__).parents[1]


def nothing(*told):
    pass


def train(out, resume=False, **given):
    """The trainer of a run, and what was said when it started."""
    starts = []
    trainer = run(GATE, given, out, resume, Ranks(), lambda trainer, start: starts.append(start), nothing)
    return trainer, starts[0]


def records(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_run_is_its_trainer_and_leaves_its_files(tmp_path):
    by_hand = gate_recipe.Trainer(gate_recipe.Settings(epochs=40, rate=0.5), torch.device("cpu"), Ranks())
    wanted = [by_hand.epoch() for _ in range(40)]
    assert np.mean([r["loss"] for r in wanted[-10:]]) < 0.5 * np.mean([r["loss"] for r in wanted[:10]])
    assert ((by_hand.logits > 0) == torch.tensor([True] * 2 + [False] * 4)).all()  # the gates of what y depends on
    trainer, start = train(tmp_path / "run", epochs=40, rate=0.5)
    assert trainer.history == wanted == records(tmp_path / "run")
    assert start == Start(done=0, extended_from=None)
    assert {f.name for f in (tmp_path / "run").iterdir()} == {
        "config.json", "metrics.jsonl", "checkpoint.pt", "gates.png"
    }  # fmt: skip
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {
        "features": 6, "rate": 0.5, "epochs": 40, "seed": 0, "device": "cpu", "data_sha256": "made from the seed"
    }  # fmt: skip


KILLED = """
import os, signal, sys
from pathlib import Path
from gate_recipe import GATE
from softdraw.recipes.runs.ranks import Ranks
from softdraw.recipes.runs.run import run
fsync, left = os.fsync, int(sys.argv[1])
def counted(handle):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(handle)
os.fsync = counted
run(GATE, {"epochs": int(sys.argv[3])}, Path(sys.argv[2]), True, Ranks(), lambda *a: None, lambda *a: None)
"""


def killed(writes, out, epochs):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    arguments = [sys.executable, "-c", KILLED, str(writes), str(out), str(epochs)]
    assert subprocess.run(arguments, env=environment, capture_output=True).returncode == -signal.SIGKILL


@pytest.mark.parametrize("writes", [4, 2 + 4 * 3 + 3], ids=["first epoch", "fourth checkpoint"])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, writes):
    train(tmp_path / "whole", epochs=6)
    killed(writes, tmp_path / "cut", 6)
    _, start = train(tmp_path / "cut", resume=True, epochs=6)
    assert start.done == (0 if writes == 4 else 3)
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_a_run_is_extended_and_its_file_says_so(tmp_path):
    """This recipe has no schedule, so a run that is extended twice is the long one but for what config.json says."""
    train(tmp_path / "long", epochs=9)
    train(tmp_path / "run", epochs=4)
    (tmp_path / "run" / "gates.png").write_bytes(b"\x89PNG old")
    assert train(tmp_path / "run", resume=True, epochs=6)[1] == Start(done=4, extended_from=4)
    assert (tmp_path / "run" / "gates.png").read_bytes() == b"\x89PNG" + bytes(6)
    killed(5, tmp_path / "run", 9)  # metrics put back take two, config.json two: in the metrics of epoch 7
    assert json.loads((tmp_path / "run" / "config.json").read_text())["epochs"] == 9
    trainer, start = train(tmp_path / "run", resume=True)
    assert start == Start(done=6, extended_from=None)
    assert trainer.history == records(tmp_path / "long")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config.pop("extended") == [{"after": 4, "from": 4}, {"after": 6, "from": 6}]
    assert config == json.loads((tmp_path / "long" / "config.json").read_text())
    with pytest.raises(InputError, match=r"has epochs 9, not 8: `epochs` may grow"):
        train(tmp_path / "run", resume=True, epochs=8)
    assert trainer.history == records(tmp_path / "run")


def test_settings_of_a_run_are_checked_under_their_own_names(tmp_path):
    with pytest.raises(InputError, match="`features` must be at least 2, got 1"):
        train(tmp_path / "run", features=1)
    train(tmp_path / "run")
    with pytest.raises(InputError, match=r"has rate 0.1, not 0.2: give the same settings, or another `out`"):
        train(tmp_path / "run", resume=True, rate=0.2)
    with pytest.raises(InputError, match=r"add `resume` to continue it"):
        train(tmp_path / "run")


def test_a_comparison_of_any_recipe(tmp_path):
    """Its figures against numpy on runs of their own, and the same when it is done again with one more seed."""
    variants = {f"rate:{rate}": {"rate": rate} for rate in (0.01, 0.3)}
    compare(GATE, {"epochs": 20}, plan(variants, 1), tmp_path / "out", nothing, nothing)
    found = compare(GATE, {"epochs": 20}, plan(variants, 3), tmp_path / "out", nothing, nothing)
    lasts = {}
    for name, given in variants.items():
        ends = [train(tmp_path / f"{name}{seed}", epochs=20, seed=seed, **given)[0].history[-1] for seed in range(3)]
        lasts[name] = {key: np.array([end[key] for end in ends]) for key in ("loss", "open")}
    report = json.loads((tmp_path / "out" / "compare.json").read_text())
    order = sorted(variants, key=lambda name: lasts[name]["loss"].mean())
    assert [entry["rate"] for entry in report["rates"]] == order == [each.name for each in found]
    for entry in report["rates"]:
        for key in ("loss", "open"):
            values = lasts[entry["rate"]][key]
            assert entry[key]["seeds"] == values.tolist()
            assert entry[key]["standard_error"] == pytest.approx(values.std(ddof=1) / np.sqrt(3))
        gaps = lasts[entry["rate"]]["loss"] - lasts[order[0]]["loss"]
        assert entry["loss_behind_the_first"]["mean"] == pytest.approx(gaps.mean())
    assert report["settings"]["features"] == 6
    assert not {"rate", "seed"} & report["settings"].keys()
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_what_one_rank_does_and_what_all_do():
    ranks = Ranks()
    assert ranks.on_first(divmod, 7, 2) == ranks.on_all(divmod, 7, 2) == (3, 1)

    def refuse(name):
        raise InputError(f"`{name}` is bad")

    for verb in (ranks.on_first, ranks.on_all):
        with pytest.raises(InputError, match=r"^`data` is bad$"):
            verb(refuse, "data")
        with pytest.raises(ZeroDivisionError):  # a fault of the program is not made a bad input
            verb(divmod, 1, 0)


def test_runs_know_no_recipe_and_no_recipe_knows_the_commands():
    recipes = ROOT / "softdraw" / "recipes"
    for source in recipes.rglob("*.py"):
        text = source.read_text()
        assert "softdraw.cli" not in text, source
        if source.parent.name == "runs":
            assert not re.search(r"autoencoder|elbo|pixel|image|latent", text, re.IGNORECASE), source


def test_an_axis_leaves_out_the_first_tenth():
    """Of 20 epochs two: 5 is the largest of the others."""
    falling = [100.0, 50.0, 5.0, *[3.0] * 17]
    low, high = figures.settled([falling, [1.0]])
    assert (low, high) == (pytest.approx(1 - 0.05 * 4), pytest.approx(5 + 0.05 * 4))
    assert figures.settled([[2.0, 2.0]]) == (1.0, 3.0)


@pytest.mark.parametrize(
    ("variants", "seeds", "message"),
    [({}, 1, "at least one variant"), ({"a": {}}, 2.0, "`seeds`"), ({"a": {}}, True, "`seeds`")],
)
def test_a_plan_of_nothing_is_refused_before_a_folder_exists(variants, seeds, message):
    with pytest.raises(InputError, match=message):
        plan(variants, seeds)
