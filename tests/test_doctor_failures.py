"""Files that the doctor cannot examine, faults of its own, and what it must not take for a finding."""

import contextlib
import multiprocessing
import os

import pytest
from doctor_cases import BAD, IMPORTS
from softdraw_doctor import runner
from softdraw_doctor.checks import CHECKS
from softdraw_doctor.command import run
from softdraw_doctor.engine import examine


def codes(text):
    return [f.code for f in examine(text, "case.py", CHECKS)]


def failing(at, failure):
    """`repair` and `examine` that fail for the file of that name."""

    def wrap(work):
        return lambda text, path, *rest: failure() if path.endswith(at) else work(text, path, *rest)

    return {name: wrap(getattr(runner, name)) for name in ("repair", "examine")}


def fault():
    raise TypeError("'LeftParen' object\nis not iterable")


def test_a_fault_in_one_file_is_one_line_and_the_others_are_rewritten(tmp_path, capsys, monkeypatch):
    for name in ("a.py", "b.py", "c.py"):
        (tmp_path / name).write_text(BAD[0].bad)
    for name, work in failing("b.py", fault).items():
        monkeypatch.setattr(runner, name, work)
    assert run(["--fix", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert [(tmp_path / name).read_text() == BAD[0].fixed for name in ("a.py", "b.py", "c.py")] == [True, False, True]
    assert (tmp_path / "b.py").read_text() == BAD[0].bad
    assert [f"+++ {tmp_path / name}" in out for name in ("a.py", "b.py", "c.py")] == [True, False, True]
    (line,) = [line for line in err.splitlines() if "b.py" in line]
    assert line.endswith(
        "b.py: the doctor failed and left the file as it was (TypeError: 'LeftParen' object is not iterable): "
        "please report it"
    )
    assert "0 findings in 2 files, 2 rewritten" in err


def test_a_rewrite_that_would_not_parse_is_not_written(tmp_path, capsys, monkeypatch):
    file = tmp_path / "a.py"
    file.write_text(BAD[0].bad)
    monkeypatch.setattr("softdraw_doctor.engine.applied", lambda data, groups: (data + b"(", 1))
    assert run(["--fix", str(file)]) == 2
    assert file.read_text() == BAD[0].bad
    assert "the rewritten text would not parse" in capsys.readouterr().err


def test_an_interrupted_run_shows_what_it_has_rewritten(tmp_path, capsys, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(BAD[0].bad)
    for name, work in failing("b.py", interrupted).items():
        monkeypatch.setattr(runner, name, work)
    with contextlib.suppress(KeyboardInterrupt):
        assert run(["--fix", str(tmp_path)]) != 0
    assert f"+++ {tmp_path / 'a.py'}" in capsys.readouterr().out


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="the stand-in is inherited by fork only")
def test_a_process_that_dies_costs_results_and_not_the_run(tmp_path, capsys, monkeypatch):
    for i in range(100):
        (tmp_path / f"{i:03}.py").write_text(BAD[0].bad)
    for name, work in failing("099.py", lambda: os._exit(1)).items():
        monkeypatch.setattr(runner, name, work)
    assert run(["--jobs", "2", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    died = err.count("a process of the doctor died")
    assert died >= 1
    assert out.count("SD101") == 100 - died
    assert "Traceback" not in err


def test_a_file_that_names_torch_and_does_not_parse_is_named_whatever_words_it_has(tmp_path, capsys):
    (tmp_path / "a.py").write_text("import torch\nx = (\n")
    (tmp_path / "b.py").write_text("import os\nx = (\n")
    assert run([str(tmp_path)]) == 2
    assert f"{tmp_path / 'a.py'}:" in capsys.readouterr().err


def test_what_was_not_examined_is_not_counted(tmp_path, capsys):
    (tmp_path / "a.py").write_text("import torch\n")
    (tmp_path / "b.py").write_text("import os\n")
    (tmp_path / "c.py").write_text("import torch\nx = (\n")
    assert run([str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("0 findings in 1 file, 1 more without torch not examined\n")


def test_no_count_follows_a_path_that_does_not_exist(tmp_path, capsys):
    (tmp_path / "a.py").write_text(BAD[0].bad)
    assert run([str(tmp_path / "none")]) == 2
    assert capsys.readouterr() == ("", f"softdraw-doctor: {tmp_path / 'none'}: no such file\n")
    assert run([str(tmp_path / "none"), str(tmp_path / "a.py")]) == 2
    out, err = capsys.readouterr()
    assert "a.py:2:8 SD101" in out
    assert "findings" not in err


def test_noqa_counts_in_a_comment_only():
    line = "def f(x, y):\n    return F.binary_cross_entropy(torch.sigmoid(x), y, {}){}\n"
    assert codes(IMPORTS + line.format("'# noqa'", "")) == ["SD101"]
    assert codes(IMPORTS + line.format("'# noqa: SD105'", "  # noqa: SD101")) == []


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("to('cuda')", "SD101"),
        ("to(device)", "SD101"),
        ("to(y.device, non_blocking=True)", "SD101"),
        ("to(torch.device('cpu'))", "SD101"),
        ("to(device=y)", "SD101"),
        ("to(torch.float32)", "SD107"),
        ("to('cuda', torch.float32)", "SD107"),
        ("to(y)", "SD107"),
        ("type('torch.FloatTensor')", "SD107"),
        ("float()", "SD107"),
    ],
)
def test_a_move_to_a_device_is_no_cast(call, code):
    text = IMPORTS + f"def f(x, y, device):\n    return F.binary_cross_entropy(torch.sigmoid(x).{call}, y)\n"
    assert codes(text) == [code]


@pytest.mark.parametrize(("factor", "found"), [("0.9", 1), ("rate", 1), ("1.8", 0), ("2", 0)])
def test_a_temperature_that_grows_is_not_annealed(factor, found):
    assert codes(f"import torch\n# gumbel\ndef f(temp, rate):\n    temp *= {factor}\n") == ["SD206"] * found
