"""The doctor as a tool: its distribution, its cache, how long it takes."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import softdraw_doctor
from doctor_cases import BAD, GOOD
from processes import run as run_code
from softdraw_doctor import cache, runner
from softdraw_doctor.command import run
from softdraw_doctor.engine import examine

import softdraw

ROOT = Path(__file__).parents[1]


def test_its_version_is_the_release():
    assert softdraw_doctor.__version__ == softdraw.__version__
    assert (ROOT / "doctor" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_it_imports_neither_torch_nor_softdraw(tmp_path):
    (tmp_path / "a.py").write_text(BAD[0].bad)
    code = (
        "import sys\nsys.modules['torch'] = sys.modules['softdraw'] = None\n"
        f"from softdraw_doctor.command import run\nprint(run([{str(tmp_path)!r}]), run(['--explain', 'SD101']))"
    )
    assert run_code(code).splitlines()[-1] == "1 0"


def test_softdraw_doctor_forwards_every_argument(tmp_path, capfd):
    (tmp_path / "a.py").write_text(BAD[0].bad)
    from softdraw.cli import run as softdraw_command

    for arguments in ([str(tmp_path)], ["--format", "json", str(tmp_path)], ["--explain", "SD101"], ["--help"]):
        outcomes = [
            (command(line), capfd.readouterr())
            for command, line in ((run, arguments), (softdraw_command, ["doctor", *arguments]))
        ]
        assert outcomes[0] == outcomes[1]
        assert "SD101" in outcomes[0][1].out or "--unsafe-fixes" in outcomes[0][1].out


def test_softdraw_doctor_says_how_to_get_it(capsys, monkeypatch):
    from softdraw.cli import run as softdraw_command

    for name in [name for name in sys.modules if name.partition(".")[0] == "softdraw_doctor"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "softdraw_doctor", None)
    assert softdraw_command(["doctor", "src"]) == 2
    said = capsys.readouterr().err
    assert "pip install softdraw-doctor" in said
    assert said.count("\n") == 1


def entries(place):
    return [path for path in place.glob("??/*") if path.is_file()]


@pytest.fixture
def place(tmp_path):
    """Files to examine, and the cache."""
    (tmp_path / "src").mkdir()
    for i, case in enumerate([*BAD[:4], *GOOD[:3]]):
        (tmp_path / "src" / f"{i}.py").write_text(case if isinstance(case, str) else case.bad)
    return tmp_path / "src", cache.folder()


def test_an_unchanged_file_is_not_analysed_again(place, capsys, monkeypatch):
    source, kept = place
    outcomes = [(run([str(source)]), capsys.readouterr()) for _ in range(2)]
    assert outcomes[0] == outcomes[1]
    assert len(entries(kept)) == 7
    monkeypatch.setattr(runner, "examine", lambda text, *_: pytest.fail(f"analysed: {text}"))
    assert (run([str(source)]), capsys.readouterr()) == outcomes[0]
    assert run(["--format", "json", str(source)]) == 1


@pytest.mark.parametrize("change", ["text", "select", "version", "checkout", "no cache"])
def test_what_changes_the_outcome_is_in_the_key(place, capsys, monkeypatch, change):
    source, _ = place
    run([str(source)])
    asked = []
    monkeypatch.setattr(runner, "examine", lambda text, *rest: asked.append(text) or examine(text, *rest))
    options = {"select": ["--select", "SD1"], "no cache": ["--no-cache"]}.get(change, [])
    if change == "text":
        (source / "0.py").write_text(BAD[0].bad + "# more\n")
    if change == "version":
        monkeypatch.setattr(cache, "__version__", "9.9.9")
    if change == "checkout":
        monkeypatch.setattr(cache, "__file__", str(ROOT / "tests" / "x.py"))
    cache._fingerprint.cache_clear()
    run([*options, str(source)])
    cache._fingerprint.cache_clear()
    assert len(asked) == (1 if change == "text" else 7)


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'[{"edits": 3}]', b'[{"line": 2}]', b"\xff\xfe", b"null"])
def test_a_damaged_entry_is_ignored_and_written_again(place, capsys, damage):
    source, kept = place
    code = run([str(source)])
    before, contents = capsys.readouterr(), {path: path.read_bytes() for path in entries(kept)}
    for path in contents:
        path.write_bytes(damage)
    assert (run([str(source)]), capsys.readouterr()) == (code, before)
    assert {path: path.read_bytes() for path in entries(kept)} == contents


def test_a_cache_that_cannot_be_written_costs_nothing(place, capsys, monkeypatch, tmp_path):
    source, _ = place
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SOFTDRAW_DOCTOR_CACHE", str(tmp_path / "file"))
    assert run([str(source)]) == 1
    assert "0.py:2:8 SD101" in capsys.readouterr().out


def test_fix_uses_what_is_known_and_repairs_the_rest(place, capsys):
    source, _ = place
    assert run([str(source)]) == 1
    run(["--fix", str(source)])
    assert (source / "0.py").read_text() == BAD[0].fixed
    assert (source / "4.py").read_text() == GOOD[0]
    capsys.readouterr()
    run(["--select", "SD101", str(source / "0.py")])
    assert capsys.readouterr().out == ""


def test_runs_beside_each_other_agree(place):
    source, kept = place
    command = [sys.executable, "-m", "softdraw_doctor", str(source)]
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: subprocess.run(command, capture_output=True, text=True), range(3)))
    assert len({(d.returncode, d.stdout, d.stderr) for d in done}) == 1
    assert len(entries(kept)) == 7
    assert all(json.loads(path.read_bytes()) is not None for path in entries(kept))


def test_old_entries_go_once_a_day(place, capsys):
    source, kept = place
    run([str(source)])
    old, *young = entries(kept)
    month = time.time() - 31 * 86_400
    os.utime(old, (month, month))
    (source / "0.py").write_text("import os\n")
    (source / "9.py").write_text("import torch\n")
    for path in source.glob("[1-8].py"):
        path.unlink()
    run([str(source)])
    assert old.exists()  # it was pruned today
    os.utime(kept / "pruned", (month, month))
    run([str(source)])
    assert not old.exists()
    assert all(path.exists() for path in young)


def taken(*arguments):
    """Seconds of the processor, which on a busy machine counts less of what others do than the wall clock."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "softdraw_doctor", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_one_small_file_takes_less_than_half_a_second(tmp_path):
    (tmp_path / "a.py").write_text(BAD[0].bad)
    assert min(taken("--no-cache", str(tmp_path / "a.py")) for _ in range(3)) < 0.5


def test_a_thousand_unchanged_files_take_less_than_two_seconds(tmp_path):
    for i in range(1000):
        (tmp_path / f"{i:04}.py").write_text(f"import torch\n\n\ndef f(x):\n    return x + {i}\n")
    taken(str(tmp_path))
    assert min(taken(str(tmp_path)) for _ in range(2)) < 2


@pytest.mark.long
def test_a_thousand_files_of_torch_take_less_than_fifteen_seconds_on_two_cores():
    """30 seconds of the processor are 15 on two cores; a fourth of the files takes about a fourth of them."""
    import torch

    folder = Path(torch.__file__).parent
    files = [str(path) for path in sorted(folder.rglob("*.py")) if "torch" in path.read_text(errors="replace")][:1000]
    assert len(files) == 1000
    assert taken("--no-cache", "--jobs", "2", *files[3::4]) < 30 / 4


def test_the_readme_and_the_docs_name_the_command():
    assert "softdraw-doctor" in (ROOT / "docs" / "doctor.md").read_text()
    readme = (ROOT / "README.md").read_text()
    for marker in ("tests", "train"):
        command = re.search(rf"<!-- {marker} -->\n```sh\n(.*)\n```", readme)
        assert command
        assert "-e ./doctor" in command[1]
