"""Output that cannot be written, and sizes that no memory holds: one line, no traceback."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from softdraw.cli import run

BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
QUICK = ["--sizes", "8x4", "--dtypes", "float32", "--threads", "1", "--operations", "index", "--rounds", "1"]


@pytest.mark.parametrize("command", [["bench", *QUICK], ["train"], ["compare"]])
@pytest.mark.parametrize("out", ["file", "file/inside", "/proc/nothing"])
def test_folders_that_cannot_be_written(capsys, tmp_path, monkeypatch, command, out):
    """A file in the way, a file for a parent, a file system that takes nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    assert run([*command, "--out", out]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""  # before anything was measured
    assert printed.err.startswith(f"softdraw: --out {out} cannot be ")
    assert printed.err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_is_there_and_takes_no_file(capsys):
    if not os.path.isdir("/proc"):
        pytest.skip("there is no /proc on this system")
    assert run(["bench", *QUICK, "--out", "/proc"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.match(r"softdraw: --out /proc.* cannot be written \(", printed.err)


@pytest.mark.parametrize("name", ["bench.json", "bench.png"])
def test_a_file_of_bench_that_cannot_be_written(capsys, tmp_path, name):
    (tmp_path / name).mkdir()
    assert run(["bench", *QUICK, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"softdraw: --out {tmp_path}: {name} cannot be written (Is a directory): give another folder\n"
    )


def test_bench_needs_matplotlib_before_it_measures(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(["bench", *QUICK, "--out", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert "the pictures need matplotlib: pip install 'softdraw[cli]'" in printed.err
    assert printed.out == ""


def test_a_size_that_no_memory_holds(capsys, tmp_path):
    assert run(["bench", *QUICK, "--sizes", "9999999x9999999", "--out", str(tmp_path)]) == 2
    assert "softdraw: the memory does not suffice (" in capsys.readouterr().err


def test_a_full_disk_is_one_line():
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full on this system")
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "softdraw", "sample", "1,2"]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, env=BUFFERED)
    assert ended.returncode == 2
    assert ended.stderr == ("softdraw: the output cannot be written (no space left): free some, or send it elsewhere\n")


def test_a_reader_that_goes_ends_the_command_in_silence():
    """As in `softdraw sample ... | head`: the reader has ended."""
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "softdraw", "sample", "1,2", "--draws", "9"]
    ended = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=120, env=BUFFERED)
    os.close(theirs)
    assert (ended.returncode, ended.stderr) == (1, "")
