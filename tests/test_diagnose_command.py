"""The command ``softdraw diagnose``, its errors, rules as words, and the command ``softdraw reproduce``."""

import json
import sys

import pytest

import softdraw
from softdraw.cli import run
from softdraw.errors import InputError
from softdraw.rules.spelling import parse_rule


def test_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_problem.py").write_text(
        "import torch, softdraw\n"
        "def make():\n"
        "    law = softdraw.OneHotCategorical(torch.tensor([1.0, 0.0, -1.0]))\n"
        "    return lambda y: (y @ torch.tensor([1.0, -1.0, 0.5])) ** 2, law\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ["own_problem:make", "--rules", "st,reinmax:tau=1.1", "--samples", "100", "--picture", "p.png"]
    assert run(["diagnose", *words]) == 0
    out = capsys.readouterr().out
    assert "StraightThrough(tau=1)" in out
    assert "ReinMax(tau=1.1)" in out
    assert (tmp_path / "p.png").exists()
    for arguments, message in (
        (["own_problem:nope"], "own_problem has no nope"),
        (["no_such_module:make"], "there is no module no_such_module"),
        (["own_problem"], "does not name a function"),
        (["own_problem:make", "--rules", "foo"], "there is no rule 'foo'"),
        (["own_problem:make", "--rules", "reinmax:tau=0"], "tau of ReinMax must be positive"),
        (["own_problem:make", "--rules", "zgr:tau=1"], "it takes nothing"),
        (["own_problem:make", "--rules", "disarm"], "DisARM does not serve OneHotCategorical"),
        (["own_problem:make", "--picture", "no/such/p.png"], "there is no folder"),
        (["own_problem:make", "--samples", "1"], "samples >= 50"),
    ):
        assert run(["diagnose", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


OWN = """
import os, torch, softdraw
W = torch.tensor([1.0, -1.0, 0.5])
law = softdraw.OneHotCategorical(torch.tensor([1.0, 0.0, -1.0]))
def make():
    import beside  # found while the function runs, too
    return lambda y: (y @ W) ** 2, law
def box():
    return lambda y: (y @ W).numpy() ** 2, law
def detached():
    return lambda y: (y.detach() @ W) ** 2, law
def nan():
    return lambda y: (y @ W) / 0, law
def crash():
    def f(y):
        return {}["targets"] * y
    return f, law
def crash_at_once():
    raise ValueError("bad data")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "made_up.py").write_text(OWN)
    (tmp_path / "code" / "beside.py").write_text("")
    (tmp_path / "code" / "broken.py").write_text("import no_such_thing")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_command_takes_a_path_and_gives_json(own, capsys):
    before = list(sys.path)
    assert run(["diagnose", "code/made_up.py:make", "--rules", "zgr,loo", "--samples", "50", "--json"]) == 0
    assert {r["name"] for r in json.loads(capsys.readouterr().out)["rules"]} == {"ZGR()", "LeaveOneOut(samples=4)"}
    assert run(["diagnose", "code/made_up.py:box", "--samples", "50"]) == 0
    assert "so pathwise rules are left out" in capsys.readouterr().out
    assert sys.path == before


def test_command_shows_the_user_s_traceback(own, capsys):
    for name, kind, frames in (("crash", "KeyError: 'targets'", 1), ("crash_at_once", "ValueError: bad data", 1)):
        assert run(["diagnose", f"code/made_up.py:{name}"]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == "Traceback (most recent call last):"
        assert kind in lines
        assert sum(line.startswith("  File") for line in lines) == frames
        assert lines[-1].startswith(f"softdraw: code/made_up.py:{name} raised {kind.partition(':')[0]}")
    assert run(["diagnose", "code/broken.py:make"]) == 2
    assert "no_such_thing" in capsys.readouterr().err


def test_command_names_what_is_wrong(own, capsys):
    (own / "made_up.py").write_text(OWN)
    for arguments, message in (
        (["code/made_up.py:maek"], "code/made_up.py has no maek: did you mean code/made_up.py:make?"),
        (["code/none.py:make"], "there is no file code/none.py"),
        (["code/made_up.py"], "does not name a function"),
        (["code/made_up.py:nan"], "f must be finite"),
        (["code/made_up.py:detached", "--rules", "zgr"], "ZGR is a pathwise rule"),
        (["code/made_up.py:make", "--rules", "foo"], "--rules: there is no rule 'foo'"),
        (["code/made_up.py:make", "--samples", "3"], "--samples 3: "),
        (["code/made_up.py:make", "--budget", "0"], "--budget 0: "),
        (["code/made_up.py:make", "--picture", "."], "--picture .: its name must end in one of ."),
        (
            ["code/made_up.py:make", "--picture", "code.png/x.png"],
            "--picture code.png/x.png: there is no folder code.png",
        ),
        (["code/made_up.py:make", "--picture", "p.doc"], ", .pdf, "),
    ):
        assert run(["diagnose", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_a_picture_that_cannot_be_written(own, capsys, monkeypatch):
    words = ["diagnose", "code/made_up.py:make", "--rules", "zgr", "--samples", "50", "--picture"]
    (own / "taken.png").mkdir()
    assert run([*words, "taken.png"]) == 2
    assert capsys.readouterr().err == "softdraw: --picture taken.png: it cannot be written: choose another place\n"

    def full(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)  # known only when it is tried
    assert run([*words, "p.png"]) == 2
    assert capsys.readouterr().err == "softdraw: --picture p.png: Read-only file system\n"


def test_rules_as_words():
    for word in ("st", "StraightThrough", "straight-through"):
        assert parse_rule(word) == softdraw.StraightThrough()
    assert parse_rule("gst") == softdraw.GappedStraightThrough()
    assert parse_rule("gumbel-rao:tau=.5:samples=20") == softdraw.GumbelRao(0.5, 20)
    assert parse_rule("gumbel-softmax") == softdraw.GumbelSoftmax()
    with pytest.raises(InputError, match="does not make a ReinMax"):
        parse_rule("reinmax:tau")


def test_reproduce_command(capsys):
    assert run(["reproduce", "polynomial", "--steps", "2"]) == 0
    assert "Ours after 2 steps, not 8000" in capsys.readouterr().out
    assert run(["reproduce", "polynomial", "--p", "4"]) == 2
    assert "choose 1.5, 2 or 3" in capsys.readouterr().err
