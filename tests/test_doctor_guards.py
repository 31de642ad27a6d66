"""The doctor's lists agree: check files, the tuple of checks, the cases, the documentation."""

import importlib
import inspect
import re
from pathlib import Path

import pytest
from doctor_cases import BAD
from softdraw_doctor import checks
from softdraw_doctor.checks import CHECKS
from softdraw_doctor.finding import Check

FILES = sorted(path.stem for path in Path(checks.__file__).parent.glob("sd*.py"))
CODES = [check.code for check in CHECKS]
DOCS = Path(__file__).parents[1] / "docs" / "doctor.md"
WORDS = {"fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20}


def own(module):
    """The checks that a file defines."""
    members = vars(importlib.import_module(f"softdraw_doctor.checks.{module}")).values()
    return [m for m in members if inspect.isclass(m) and issubclass(m, Check) and m.__module__.endswith(module)]


@pytest.mark.parametrize("file", FILES)
def test_a_check_file_is_registered_under_its_code(file):
    (check,) = own(file)
    assert file.partition("_")[0].upper() == check.code
    assert [type(c) for c in CHECKS].count(check) == 1


def test_every_registered_check_has_a_file_and_a_code_of_its_own():
    assert [file.partition("_")[0].upper() for file in FILES] == CODES
    assert [type(check).__module__.rpartition(".")[2] for check in CHECKS] == FILES


def test_every_check_has_a_case_and_every_case_a_check():
    assert {case.code for case in BAD} == set(CODES)


def test_the_table_of_the_docs_has_every_check_and_no_other():
    assert re.findall(r"^\| (SD\d+) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE) == CODES


def test_the_docs_state_the_number_of_checks():
    stated = re.findall(r"(\w+) checks\b", DOCS.read_text(encoding="utf-8"))
    numbers = [WORDS[w.lower()] for w in stated if w.lower() in WORDS] + [int(w) for w in stated if w.isdigit()]
    assert numbers
    assert set(numbers) == {len(CHECKS)}


def test_the_docs_and_the_explanations_say_which_checks_are_off_by_default():
    rows = dict(re.findall(r"^\| (SD\d+) \|(.*)$", DOCS.read_text(encoding="utf-8"), re.MULTILINE))
    for check in CHECKS:
        assert ("off by default" in rows[check.code]) == (not check.default), check.code
        assert ("off by default" in check.explanation.lower()) == (not check.default), check.code


def test_the_docs_say_which_checks_rewrite():
    """The last column of the table against the cases."""
    rows = re.findall(r"^\| (SD\d+) \|.*\| ([^|]+) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    said = {code: re.split(r"[ ,(]", rewrite)[0] for code, rewrite in rows}
    for code in CODES:
        kinds = {case.unsafe for case in BAD if case.code == code and case.fixed is not None}
        allowed = {"no"} if not kinds else {"unsafe"} if kinds == {True} else {"safe", "unsafe", "with"}
        assert said[code] in allowed, code


@pytest.mark.parametrize("check", CHECKS, ids=CODES)
def test_needs_are_plain_words(check):
    assert check.needs
    for group in check.needs:
        assert group
        assert all(isinstance(word, str) and word.isidentifier() for word in group)
