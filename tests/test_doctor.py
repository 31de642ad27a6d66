"""The doctor on its cases, by running what it rewrites, on bad input, and through every way in and out."""

import ast
import json
import os
import subprocess
import sys

import pytest
import torch
from doctor_cases import BAD, GOOD
from softdraw_doctor.checks import CHECKS
from softdraw_doctor.command import run
from softdraw_doctor.engine import examine, repair
from softdraw_doctor.errors import InputError
from softdraw_doctor.explain import explain

SAME = [case for case in BAD if case.same]


def codes(text):
    return [f.code for f in examine(text, "case.py", CHECKS)]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_bad_code_is_found_and_repaired_as_expected(number):
    case = BAD[number]
    findings = [f for f in examine(case.bad, "case.py", CHECKS) if f.code == case.code]
    assert findings
    result = repair(case.bad, "case.py", CHECKS, unsafe=True)
    assert result.text == (case.fixed or case.bad)
    if case.fixed is None:
        assert all(f.reason or f.likely for f in findings)
    else:
        assert all(f.fixable and f.unsafe == case.unsafe for f in findings)
        assert repair(result.text, "case.py", CHECKS, unsafe=True).text == result.text
        assert case.code not in codes(result.text)
    if case.unsafe:
        assert repair(case.bad, "case.py", CHECKS).text == case.bad


@pytest.mark.parametrize("number", range(len(GOOD)))
def test_good_code_is_left_alone(number):
    assert codes(GOOD[number]) == []


def test_every_check_has_a_case_and_an_explanation():
    assert {case.code for case in BAD} == {check.code for check in CHECKS}
    for check in CHECKS:
        assert "Wrong:" in check.explanation
        assert "Right:" in check.explanation


@pytest.mark.parametrize("number", range(len(SAME)))
def test_a_rewrite_computes_the_same(number):
    case = SAME[number]
    generator = torch.Generator().manual_seed(number)
    x, y = (torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    outcomes = []
    for text in (case.bad, case.fixed):
        scope: dict = {}
        exec(compile(text, "case.py", "exec"), scope)
        leaf = x.clone().requires_grad_()
        value = scope["f"](leaf, y.sigmoid())
        outcomes.append((value.detach(), torch.autograd.grad(value.sum(), leaf)[0]))
    torch.testing.assert_close(outcomes[0], outcomes[1], rtol=1e-10, atol=1e-12)


def test_the_rest_of_a_file_stays_as_it_was(tmp_path):
    """A byte order mark, Latin-1 with its cookie, CRLF line ends, comments, form feeds, permissions."""
    line = 'F.binary_cross_entropy(torch.sigmoid(x),  y) # é\r\n\x0c\r\ns = "\\d"\r\n'
    head = "import torch\r\nfrom torch.nn import functional as F\r\n"
    for name, start, encoding in (
        ("bom.py", "", "utf-8-sig"),
        ("latin.py", "# -*- coding: latin-1 -*-\r\n", "latin-1"),
    ):
        file = tmp_path / name
        file.write_bytes((start + head + line).encode(encoding))
        file.chmod(0o640)
        assert run(["--fix", str(file)]) == 0
        wanted = start + head.replace("import torch\r\n", "") + line.replace("torch.sigmoid(x)", "x")
        wanted = wanted.replace("cross_entropy(", "cross_entropy_with_logits(")
        assert file.read_bytes() == wanted.encode(encoding)
        assert file.stat().st_mode & 0o777 == 0o640
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bom.py", "latin.py"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "a.py"
    file.write_text(BAD[0].bad)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert run(["--fix", str(file)]) == 2
    assert file.read_text() == BAD[0].bad
    assert [p.name for p in tmp_path.iterdir()] == ["a.py"]


def test_bad_files_are_named_and_the_run_goes_on(tmp_path, capsys):
    (tmp_path / "broken.py").symlink_to(tmp_path / "nowhere.py")
    (tmp_path / "latin.py").write_bytes(b"import torch\n# \xe9\n")
    (tmp_path / "syntax.py").write_text("import torch\nF.binary_cross_entropy(torch.sigmoid(x) y)\n")
    (tmp_path / "deep.py").write_text("import torch.nn.BCELoss, Sigmoid\n" + "x = " + "(" * 5000 + ")" * 5000)
    (tmp_path / "found.py").write_text(BAD[0].bad)
    assert run([str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert "found.py:2:8 SD101" in out
    for line in ("broken.py: a broken link", "latin.py: not UTF-8", "syntax.py:2: does not parse", "deep.py"):
        assert any(line in row for row in err.splitlines())
    assert "Traceback" not in err


def test_exit_codes_and_selection(tmp_path, capsys, monkeypatch):
    (tmp_path / "a.py").write_text(BAD[0].bad)
    (tmp_path / "pyproject.toml").write_text('[tool.softdraw.doctor]\nignore = ["SD103"]\nexclude = ["skip*"]\n')
    (tmp_path / "skipped.py").write_text(BAD[0].bad)
    (tmp_path / "b.py").write_text(BAD[1].bad)
    here = str(tmp_path)
    assert run([here]) == 1
    assert capsys.readouterr().out.count("SD") == 1
    assert run(["--select", "SD2", here]) == 0
    assert run(["--select", "SD999", here]) == 2
    assert "no check has the code SD999" in capsys.readouterr().err
    assert run([]) == 2
    assert run(["--unsafe-fixes", here]) == 2
    assert run(["--fix", here]) == 0
    shown = capsys.readouterr().out
    assert "-loss = nn.functional.binary_cross_entropy(nn.functional.sigmoid(output), target)" in shown
    assert (tmp_path / "a.py").read_text() == BAD[0].fixed
    assert (tmp_path / "skipped.py").read_text() == BAD[0].bad
    (tmp_path / "pyproject.toml").write_text("[tool.softdraw.doctor]\nselct = []\n")
    assert run([here]) == 2
    assert "has no selct" in capsys.readouterr().err


def test_many_files_in_many_processes_give_the_same(tmp_path, capsys):
    for i in range(100):
        (tmp_path / f"{i:03}.py").write_text(BAD[i % 2].bad)
    outputs = []
    for jobs in ("1", "2"):
        assert run(["--jobs", jobs, str(tmp_path)]) == 1
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    assert outputs[0].count("SD10") == 100


def test_formats(tmp_path, capsys):
    file = tmp_path / "a.py"
    file.write_text(BAD[0].bad)
    run(["--format", "json", str(file)])
    (row,) = json.loads(capsys.readouterr().out)
    assert set(row) == {"path", "line", "column", "code", "message", "fixable", "explanation"}
    assert (row["path"], row["line"], row["column"], row["code"]) == (str(file), 2, 8, "SD101")
    assert row["fixable"] is True
    run(["--format", "github", str(file)])
    assert capsys.readouterr().out.startswith(f"::warning file={file},line=2,col=8,title=SD101::sigmoid into")
    run(["--format", "sarif", str(file)])
    log = json.loads(capsys.readouterr().out)
    (result,) = log["runs"][0]["results"]
    assert log["version"] == "2.1.0"
    assert result["ruleId"] == "SD101"
    assert result["locations"][0]["physicalLocation"]["region"] == {"startLine": 2, "startColumn": 8}
    assert {rule["id"] for rule in log["runs"][0]["tool"]["driver"]["rules"]} == {check.code for check in CHECKS}


def test_explain_by_code_by_message_and_by_traceback(capsys):
    assert explain("sd101").startswith("SD101 SigmoidIntoBCE")
    message = (
        "RuntimeError: torch.nn.functional.binary_cross_entropy and torch.nn.BCELoss are unsafe to autocast.\n"
        "Many models use a sigmoid layer right before the binary cross entropy layer."
    )
    assert explain(message).startswith("SD102")
    with pytest.raises(InputError, match="no check knows"):
        explain("IndexError: list index out of range")
    with pytest.raises(RuntimeError) as caught:
        torch.nn.BCEWithLogitsLoss(torch.zeros(2), torch.zeros(2))
    assert "SD103" in explain(f"Traceback (most recent call last):\n  ...\nRuntimeError: {caught.value}\n")
    with pytest.raises(RuntimeError) as caught:
        torch.nn.functional.binary_cross_entropy(torch.full((2,), 3.0), torch.zeros(2))
    assert "SD101" in explain(str(caught.value))


def test_a_traceback_on_standard_input():
    text = "Traceback (most recent call last):\n  File ...\nRuntimeError: ... are unsafe to autocast.\n"
    command = [sys.executable, "-m", "softdraw_doctor", "--explain", "-"]
    result = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("SD102 BCEInAutocast")


def test_flake8_plugin():
    from softdraw_doctor.flake8 import Plugin

    ((line, column, message, kind),) = Plugin(ast.parse(BAD[0].bad), BAD[0].bad.splitlines(True), "a.py").run()
    assert (line, column, kind) == (2, 7, Plugin)
    assert message.startswith("SD101 sigmoid into")


@pytest.mark.parametrize(
    ("noise", "said"),
    [
        ("torch.empty_like(y).exponential_()", "on CUDA exponential_() is never below 2**-24"),
        ("torch.empty_like(y).exponential_().clamp_min_(1e-10)", "on CUDA exponential_() is never below 2**-24"),
        ("-torch.rand_like(y).log()", "the uniform can be 0"),
        ("-(torch.rand_like(y) + 1e-9).log()", "1e-9 cuts a tail"),
        ("-torch.rand_like(y, dtype=torch.float64).log()", "right, but float64 takes twice the memory"),
    ],
)
def test_a_race_is_told_what_is_wrong_with_its_own_noise(noise, said):
    (finding,) = examine(f"import torch\ndef f(y):\n    return y / ({noise})\n", "case.py", CHECKS)
    assert said in finding.message
