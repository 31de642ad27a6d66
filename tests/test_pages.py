"""The pages: every public name has one entry in the reference, every link leads somewhere, and all code is run."""

from __future__ import annotations

import importlib
import posixpath
import re
import textwrap
from collections import Counter
from pathlib import Path

import pytest

import softdraw
from softdraw import cli, diagnosis
from softdraw.cli.train import RECIPES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
OUTSIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md", "csrc/README.md")
READMES = [ROOT / name for name in OUTSIDE]
# Code that is run elsewhere: by tests/integrations/test_docs.py, with the libraries that it names.
RUN_ELSEWHERE = {"other-libraries.md"}
FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return FENCED.sub("", page.read_text())


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def public_names() -> set[str]:
    """The full names that a user may write: of the package, of its public modules, and of a report."""
    modules = {name for name in softdraw.__all__ if hasattr(getattr(softdraw, name), "__path__")} | {"metrics"}
    names = {f"softdraw.{name}" for name in set(softdraw.__all__) - modules}
    for module in modules:
        names |= {f"softdraw.{module}.{name}" for name in getattr(softdraw, module).__all__}
    for module in ("softdraw.integrations.lightning", "softdraw.integrations.transformers"):
        names |= {f"{module}.{name}" for name in importlib.import_module(module).__all__}
    return names | {f"softdraw.diagnosis.{name}" for name in set(diagnosis.__all__) - {"RULES", "diagnose"}}


def test_every_public_name_has_one_entry_in_the_reference():
    text = "\n".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    entries = Counter(re.findall(r"^::: (\S+)", text, re.MULTILINE))
    assert [name for name, times in entries.items() if times > 1] == []
    assert public_names() - set(entries) == set(), "names without an entry in docs/reference"
    assert set(entries) - public_names() == set(), "entries in docs/reference of names that are not public"
    for name in entries:
        module, _, last = name.rpartition(".")
        assert hasattr(importlib.import_module(module), last), f"there is no {name}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    text = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower() for heading in headings)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading)) for heading in text}


def links(page: Path) -> list[str]:
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    found = re.findall(r"\]\(([^()\s]+)\)", text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    return [link for link in found if "://" not in link and not link.startswith("mailto:")]


@pytest.mark.parametrize("page", PAGES + READMES, ids=named)
def test_every_link_leads_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page if not path else Path(posixpath.normpath(page.parent / path))
        assert target.exists(), f"{named(page)} links to {link}, which is not there"
        if anchor and target.suffix == ".md":  # an image says #only-light or #only-dark
            assert anchor in anchors(target), f"{named(page)} links to {link}, and that page has no such heading"


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    listed = Counter(re.findall(r"[\w./-]+\.md(?=\n|$)", text[text.index("\nnav:") :]))
    hooks = (ROOT / "tools" / "docs" / "hooks.py").read_text()
    outside = set(re.findall(r'^    "([\w/-]+\.md)": "', hooks, re.MULTILINE))
    assert [page for page, times in listed.items() if times > 1] == []
    assert {str(page.relative_to(DOCS)) for page in PAGES} | outside == set(listed)


def blocks(page: Path) -> list[str]:
    """The Python of a page that is no doctest, but for blocks that say why they are not run."""
    text = re.sub(r"^<!-- not run: .+ -->\n```python\n.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [code for language, code in FENCED.findall(text) if language == "python" and ">>>" not in code]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in RUN_ELSEWHERE], ids=named)
def test_the_code_of_a_page_runs(page):
    names: dict = {}
    for code in blocks(page):
        exec(compile(code, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_page_has_no_code_that_nothing_runs(page):
    """Indented blocks are for commands, output and formulas: Python is fenced, so that it is found and run."""
    indented = re.findall(r"(?<=\n\n)((?:    .*\n)+)", prose(page))
    found = [block for block in indented if re.search(r"^    .*(?:softdraw|torch)\.\w+\S*\(", block, re.MULTILINE)]
    if page.name != "noise.md":
        assert found == []
    doctests = [code for _, code in FENCED.findall(page.read_text()) if code.startswith(">>>")]
    assert all(code.endswith("\n\n") for code in doctests), (
        "a doctest needs an empty line before the fence that ends it, or the fence is read as its output"
    )


def test_the_page_of_the_command_line_lists_every_command_and_prints_what_sample_prints(capsys):
    page = (DOCS / "command-line.md").read_text()
    names = [command.name or command.callback.__name__ for command in cli.app.registered_commands]  # pyright: ignore
    names += ["train", *(f"train {recipe.__name__}" for recipe in RECIPES)]
    assert sorted(re.findall(r"^\| `softdraw (\w+(?: \w+)?)`", page, re.MULTILINE)) == sorted(names)
    assert cli.run(["sample", "1,2,3; 2,1,0.5"]) == 0
    assert textwrap.indent(capsys.readouterr().out.strip("\n"), "    ") in page


def test_the_glossary_has_the_words_of_the_library():
    words = set(re.findall(r"^\| \*\*([\w -]+)\*\* \|", (DOCS / "glossary.md").read_text(), re.MULTILINE))
    assert {"row", "stream", "law", "rule", "body", "seed", "id", "tau", "mask", "soft draw", "hard draw"} <= words
