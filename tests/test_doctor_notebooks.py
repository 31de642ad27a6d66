"""Notebooks, cell by cell, and standard input."""

import json
import subprocess
import sys

import pytest
from doctor_cases import BAD, GOOD, IMPORTS
from softdraw_doctor.checks import CHECKS
from softdraw_doctor.command import run
from softdraw_doctor.engine import examine, repair
from softdraw_doctor.notebook import Notebook

LOSS = "loss = F.binary_cross_entropy(torch.sigmoid(x), y)\n"
FIXED = "loss = F.binary_cross_entropy_with_logits(x, y)\n"


def cell(source, kind="code", listed=True):
    made = {"cell_type": kind, "metadata": {"t": [1.0, True, None]}}
    made["source"] = source.splitlines(True) if listed else source
    return {**made, "outputs": [{"text": [LOSS]}], "execution_count": None} if kind == "code" else made


def book(*cells, indent=1, ascii_only=False, **metadata):
    whole = {"cells": [c if isinstance(c, dict) else cell(c) for c in cells], "metadata": metadata}
    return json.dumps({**whole, "nbformat": 4, "nbformat_minor": 5}, indent=indent, ensure_ascii=ascii_only) + "\n"


def places(raw):
    notebook = Notebook(raw)
    found = [notebook.located(f) for f in examine(notebook.code, "a.ipynb", CHECKS)]
    return [(f.cell, f.line, f.column, f.code) for f in found]


def fixed(raw, unsafe=True):
    notebook = Notebook(raw)
    return notebook.changed(repair(notebook.code, "a.ipynb", CHECKS, unsafe).text)


def test_a_finding_has_its_cell_and_its_line_within_it():
    raw = book(cell("# torch\n" + LOSS, "markdown"), IMPORTS, "a = 1\n\n" + LOSS, "b = 2")
    assert places(raw) == [(3, 3, 8, "SD101")]


@pytest.mark.parametrize(
    "other",
    [
        "%matplotlib inline",
        "  %time f()",
        "!pip install torch",
        "?torch",
        "torch.log?",
        "files = !ls",
        "x = %timeit -o f()",
        "%%time",
    ],
)
def test_what_is_no_python_hides_nothing_and_stays(other):
    block = "if x:\n" if other[0] == " " else ""
    raw, wanted = (book(IMPORTS, f"{block}{other}\n{line}", f"for x in y:\n    {other}") for line in (LOSS, FIXED))
    assert [(c, code) for c, _, _, code in places(raw)] == [(2, "SD101")]
    assert fixed(raw) == wanted


@pytest.mark.parametrize("other", ["%%bash\necho 'a", "%%html\n<b>", "print 'python 2'", "if:\n"])
def test_a_cell_in_another_language_is_left_out(other):
    raw = book(IMPORTS, other, LOSS)
    assert [(c, code) for c, _, _, code in places(raw)] == [(3, "SD101")]
    assert json.loads(fixed(raw))["cells"][1]["source"] == other.splitlines(True)


@pytest.mark.parametrize("indent", [None, 1, 4])
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("number", range(0, len(BAD), 3))
def test_a_repair_changes_the_sources_alone(number, indent, ascii_only, listed):
    """Every third case, between cells with the same words elsewhere; the repaired notebook is what json would write."""
    case = BAD[number]
    note, other = cell(f"{case.bad} é 中", "markdown"), cell("s = 'é \\u00e9 \\x0c'", listed=listed)
    expected = case.fixed or case.bad
    raw, wanted = (
        book(
            note,
            cell(text, listed=listed),
            other,
            indent=indent,
            ascii_only=ascii_only,
            kernelspec={"language": "python"},
        )
        for text in (case.bad, expected)
    )
    assert fixed(raw) == wanted


def test_unusual_writing_of_json_stays():
    raw = book(IMPORTS, LOSS + "s = 1\n").replace('"s = 1', '"\\u0073 = 1').replace('"metadata": {', '"metadata"  :\t{')
    new = fixed(raw)
    assert new.count(json.dumps(FIXED)) == 1
    assert new.replace(json.dumps(FIXED), json.dumps(LOSS)) == raw


def test_an_import_of_an_earlier_cell_goes_when_nothing_uses_it():
    raw = book(
        "from torch import sigmoid\nfrom torch.nn.functional import binary_cross_entropy\n",
        "def f(x, y):\n    return binary_cross_entropy(sigmoid(x), y)\n",
    )
    cells = json.loads(fixed(raw))["cells"]
    assert cells[0]["source"] == ["from torch.nn.functional import binary_cross_entropy_with_logits\n"]
    assert cells[1]["source"][1] == "    return binary_cross_entropy_with_logits(x, y)\n"


def test_noqa_and_other_languages():
    assert places(book(IMPORTS, LOSS[:-1] + "  # noqa: SD101")) == []
    assert places(book(IMPORTS, LOSS, kernelspec={"language": "R"})) == []


@pytest.mark.parametrize("raw", ["torch", '["torch"]', '{"torch": ', '{"cells": "torch"}', '{"cells": [{"torch": 1}]}'])
def test_what_is_no_notebook_is_named(tmp_path, capsys, raw):
    (tmp_path / "a.ipynb").write_text(raw)
    assert run([str(tmp_path / "a.ipynb")]) == 2
    assert "a.ipynb: not a notebook of format 4" in capsys.readouterr().err


@pytest.mark.parametrize("number", range(len(GOOD)))
def test_good_cells_are_left_alone(number):
    if not GOOD[number].startswith("import jax"):
        raw = book(GOOD[number])
        assert places(raw) == []
        assert fixed(raw) == raw


def test_the_command_checks_and_fixes_notebooks(tmp_path, capsys):
    file = tmp_path / "NOTES.ipynb" if sys.platform == "win32" else tmp_path / "notes.ipynb"
    raw = book(IMPORTS, "def f(x, y):\n    return F.binary_cross_entropy(torch.sigmoid(x), y)\n")
    file.write_text(raw)
    for options in ([], []):  # the second answer comes from the cache
        assert run([*options, str(tmp_path)]) == 1
        assert f"{file}:cell 2:2:12 SD101" in capsys.readouterr().out
    run(["--format", "json", str(file)])
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["cell"], row["line"]) == (2, 2)
    run(["--format", "github", str(file)])
    assert capsys.readouterr().out.startswith(f"::warning file={file},title=SD101::cell 2, line 2: sigmoid into")
    run(["--format", "sarif", str(file)])
    (result,) = json.loads(capsys.readouterr().out)["runs"][0]["results"]
    assert "region" not in result["locations"][0]["physicalLocation"]
    assert run(["--fix", str(file)]) == 0
    assert file.read_text() == raw.replace("return " + LOSS[7:-1], "return " + FIXED[7:-1])


def piped(data, *options):
    command = [sys.executable, "-m", "softdraw_doctor", *options, "-"]
    return subprocess.run(command, input=data, capture_output=True)


def test_standard_input():
    data = b"# coding: latin-1\r\n" + BAD[0].bad.replace("\n", "\r\n").encode() + b"# \xe9\r\n"
    done = piped(data)
    assert (done.returncode, done.stdout[:14]) == (1, b"-:3:8 SD101 si")
    done = piped(data, "--fix", "--stdin-filename", "src/a.py")
    assert done.returncode == 0
    wanted = BAD[0].fixed or ""
    assert done.stdout == b"# coding: latin-1\r\n" + wanted.replace("\n", "\r\n").encode() + b"# \xe9\r\n"
    assert done.stderr.startswith(b"0 findings in 1 file, 1 rewritten")


def test_standard_input_that_cannot_be_repaired_comes_out_as_it_was(capsys):
    done = piped(b"import torch\nx = (\n", "--fix")
    assert (done.returncode, done.stdout) == (2, b"import torch\nx = (\n")
    assert b"-:3: does not parse as Python" in done.stderr or b"does not parse as Python" in done.stderr
    assert run(["-", "a.py"]) == 2
    assert "given alone" in capsys.readouterr().err
