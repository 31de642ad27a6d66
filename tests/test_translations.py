"""The Chinese pages: each has the headings, code, numbers and links of its English page, place by place.

Whoever changes an English page reads here which line of the Chinese one to change. Only the sentences are free.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
ORIGINALS = ("README.md", "docs/autocast.md")
MARKERS = ("<!-- train -->", "<!-- tests -->")
# What a browser does not show of a link or a picture: its target.
TARGET = re.compile(r'(?<=\]\()[^()\s]+(?=\))|(?<=src=")[^"]+|(?<=srcset=")[^"]+|(?<=href=")[^"]+')
# 4.9, 16,298, 2.13.0 and 1e-38 are one number each. A minus is a sign unless a word or a number stands before it.
NUMBER = re.compile(r"(?:(?<![\w)])-)?\d+(?:[.,]\d+)*(?:e-?\d+)?", re.ASCII)
SPAN = re.compile(r"`[^`\n]+`")


class Part(NamedTuple):
    """A paragraph, a table's row, a heading or a block of code, at its first line."""

    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def translation(original: str) -> str:
    return original.removesuffix(".md") + ".zh-CN.md"


def kind_of(line: str, inside: str) -> str:
    """What a line belongs to, after a line of the kind `inside`, which is empty after a blank line."""
    if line.startswith("    ") and inside in ("", "indented code"):
        return "indented code"
    if heading := re.match(r"#+ ", line):
        return f"heading of level {len(heading[0]) - 1}"
    return "table row" if line.startswith("|") else "paragraph"


def parts(page: str, text: str) -> list[Part]:
    """The page from top to bottom, without comments, which nobody sees. Their lines stay, so that line numbers hold."""
    text = re.sub(r"<!--.*?-->", lambda comment: "\n" * comment[0].count("\n"), text, flags=re.DOTALL)
    found: list[Part] = []
    kind = ""
    for number, line in enumerate(text.splitlines(), 1):
        if kind == "fenced code":
            found[-1] = found[-1]._replace(text=f"{found[-1].text}\n{line}")
            kind = "" if line == "```" else kind
        elif line.startswith("```"):
            kind = "fenced code"
            found.append(Part(page, number, kind, line))
        elif not line.strip():
            kind = ""
        else:
            new = kind_of(line, kind)
            if new == kind and kind in ("paragraph", "indented code"):
                found[-1] = found[-1]._replace(text=f"{found[-1].text}\n{line}")
            else:
                found.append(Part(page, number, new, line))
            kind = new
    return found


def read(page: str) -> list[Part]:
    return parts(page, (ROOT / page).read_text())


def numbers(text: str) -> list[str]:
    return NUMBER.findall(TARGET.sub("", text))


def targets(text: str) -> list[str]:
    """Where the links lead. A link to one of the translations counts as one to its original."""
    found = TARGET.findall(SPAN.sub("", text))
    names = [Path(original).stem for original in ORIGINALS]
    return [re.sub(rf"\b({'|'.join(names)})\.zh-CN\.md(?=#|$)", r"\1.md", target) for target in found]


def sections(page: str) -> list[list[Part]]:
    """A heading and what stands under it. What stands above the first heading is a section too."""
    found: list[list[Part]] = [[]]
    for part in read(page):
        if part.kind.startswith("heading"):
            found.append([])
        found[-1].append(part)
    return [section for section in found if section]


def contents(section: list[Part]) -> str:
    return ", ".join(f"{times} x {kind}" for kind, times in Counter(part.kind for part in section).items())


KEPT: dict[str, Callable[[str], list[str]]] = {
    "numbers": numbers,
    "links": targets,
    "code within a line": lambda text: SPAN.findall(text),
}


def differences(english: Part, chinese: Part) -> list[str]:
    """A sentence for each thing that the two parts do not have, or not as often."""
    found = []
    for what, of in KEPT.items():
        ours, theirs = Counter(of(english.text)), Counter(of(chinese.text))
        if ours != theirs:
            lists = [", ".join(sorted(c.elements())) or "nothing" for c in (ours - theirs, theirs - ours)]
            found.append(f"{what}: {english} alone has {lists[0]}; {chinese} alone has {lists[1]}")
    return found


@pytest.mark.parametrize("original", ORIGINALS)
def test_a_translation_has_the_same_headings(original):
    pages = [[part for part in read(page) if "heading" in part.kind] for page in (original, translation(original))]
    for english, chinese in itertools.zip_longest(*pages):
        assert english, f"{chinese} has a heading that {original} does not have: {chinese.text}"
        assert chinese, f"{english} has a heading that {translation(original)} does not have: {english.text}"
        assert english.kind == chinese.kind, (
            f"{english} is a {english.kind} and {chinese} a {chinese.kind}: {english.text!r}, {chinese.text!r}"
        )


@pytest.mark.parametrize("original", ORIGINALS)
def test_a_translation_has_the_same_code(original):
    """Fenced and indented, comments included, in order."""
    pages = [[part for part in read(page) if "code" in part.kind] for page in (original, translation(original))]
    for english, chinese in itertools.zip_longest(*pages):
        assert english, f"{chinese} has code that {original} does not have:\n{chinese.text}"
        assert chinese, f"{english} has code that {translation(original)} does not have:\n{english.text}"
        lines = itertools.zip_longest(english.text.split("\n"), chinese.text.split("\n"))
        for i, (ours, theirs) in enumerate(lines):
            assert ours == theirs, (
                f"code differs: {original}:{english.line + i} has {ours!r}, "
                f"{translation(original)}:{chinese.line + i} has {theirs!r}"
            )


@pytest.mark.parametrize("original", ORIGINALS)
def test_a_translation_has_the_same_numbers_links_and_names_in_each_paragraph_and_row(original):
    wrong = []
    for ours, theirs in itertools.zip_longest(sections(original), sections(translation(original)), fillvalue=[]):
        if [part.kind for part in ours] != [part.kind for part in theirs]:
            places = [f"{s[0]} has {contents(s)}" for s in (ours, theirs) if s]
            wrong.append(f"a section's parts differ in number or order: {'; '.join(places)}")
            continue
        for english, chinese in zip(ours, theirs, strict=True):
            if "code" not in english.kind:
                wrong += differences(english, chinese)
    assert not wrong, "\n".join(["change the translation as well:", *wrong])


def test_every_translation_is_compared_and_is_linked_both_ways():
    found = [*ROOT.glob("*.zh-CN.md"), *(ROOT / "docs").rglob("*.zh-CN.md")]
    assert {str(page.relative_to(ROOT)) for page in found} == set(map(translation, ORIGINALS))
    for original in ORIGINALS:
        pages = original, translation(original)
        for page, other in (pages, pages[::-1]):
            top = read(page)[1]  # under the title
            assert f"]({Path(other).name})" in top.text, f"{top} does not link to {other}"


def test_the_commands_that_ci_reads_are_marked_in_the_english_readme_alone():
    """.ci/run takes what stands between the marker and the end of the block, so that must be one command."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md")]
    for marker in MARKERS:
        holders = [str(page.relative_to(ROOT)) for page in pages if marker in page.read_text()]
        assert holders == ["README.md"], f"{marker} belongs in README.md alone, and is in {holders}"
        marked = re.findall(rf"^{marker}\n```sh\n[^\n]+\n```$", (ROOT / "README.md").read_text(), re.MULTILINE)
        assert len(marked) == 1, f"one ```sh block of one line must follow {marker} in README.md"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("16,298 files, 4.9 bits, torch 2.13.0.", ["16,298", "4.9", "2.13.0"]),
        ("tau = -1, 1e-38, 1 - 1e-6, 3-8", ["-1", "1e-38", "1", "1e-6", "3", "8"]),
        ("[SD107](doctor2.md#part-3), 100\u9879", ["107", "100"]),
        ('<img src="a-1.svg" alt="2 draws"> [0.0, 0]', ["2", "0.0", "0"]),
        ("torch 2.6\u4e0a\uff0c13 \u79d2\uff08\u7ea6 3% \u5230 8%\uff09", ["2.6", "13", "3", "8"]),
    ],
)
def test_numbers_are_found_in_both_languages_and_not_in_the_targets_of_links(text, found):
    assert numbers(text) == found
