"""A notebook's code as one Python text, and the notebook with that text changed, every other byte as it was.

Cells share their names, so they are examined as one file, in the order in which they stand. Between two cells stands a
comment with a number; what is no Python (magics, shell lines, cells in another language or that do not parse) becomes a
comment with a number, or ``pass`` where a block would be empty, and comes back at the end.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from json.decoder import scanstring  # pyright: ignore[reportAttributeAccessIssue]

from softdraw_doctor.finding import Finding

_MARK = "#softdraw-doctor"
_CELL = re.compile(rf"^{_MARK}-cell:(\d+)\n", re.MULTILINE)
_KEPT = re.compile(rf"pass {_MARK}-kept:(\d+)")
_OTHER = re.compile(r"^[ \t]*(?:[%!?].*|[\w.]+\?{1,2}[ \t]*|[\w.,()\[\] \t]+=[ \t]*[%!].*)$")
_WRAPS = re.compile(r"\s*%%(time|timeit|capture|prun)\b")  # the rest of such a cell is Python
_SPACE = re.compile(r"[ \t\r\n]*")
_ATOM = re.compile(r"[^\s,\]}]+")


class NotebookError(ValueError):
    """A text that is no notebook; the message says why."""


@dataclass(frozen=True)
class _Cell:
    """A code cell: its number from 1 among all cells, and where each string of its source stands in the file."""

    number: int
    spans: tuple[tuple[int, int], ...]
    lines: tuple[str, ...]
    listed: bool = True  # one string a line, as nearly every notebook has it

    @property
    def source(self) -> str:
        return "".join(self.lines)


class Notebook:
    """A notebook's raw text and its code."""

    def __init__(self, raw: str) -> None:
        self._raw, self._kept = raw, []
        self._cells = list(_code_cells(raw))
        parts = [f"{_MARK}-cell:{i}\n{self._python(cell.source)}\n" for i, cell in enumerate(self._cells)]
        self.code = "".join(parts)

    def located(self, finding: Finding) -> Finding:
        """The finding with its cell, and its line within that."""
        before = [m for m in _CELL.finditer(self.code) if self.code.count("\n", 0, m.end()) < finding.line]
        first = self.code.count("\n", 0, before[-1].end())
        return replace(finding, line=finding.line - first, cell=self._cells[int(before[-1][1])].number)

    def changed(self, code: str) -> str:
        """The notebook's raw text where its code has become ``code``."""
        raw = self._raw
        pieces = _CELL.split(code)[1:]
        assert pieces[::2] == [str(i) for i in range(len(self._cells))], "a rewrite moved code between cells"
        for cell, piece in reversed(list(zip(self._cells, pieces[1::2], strict=True))):
            new = _KEPT.sub(lambda m: self._kept[int(m[1])], piece[:-1])
            if new != cell.source:
                raw = _rewritten(raw, cell, new)
        return raw

    def _python(self, source: str) -> str:
        """The cell with what is no Python kept aside."""
        if re.match(r"\s*%%", source) and not _WRAPS.match(source):
            return self._keep(source)
        text = "\n".join(self._keep(line) if _OTHER.match(line) else line for line in source.split("\n"))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ast.parse(text)
        except (SyntaxError, ValueError):
            return self._keep(source)
        return text

    def _keep(self, text: str) -> str:
        """A statement without effect in the place of ``text``, on as many lines."""
        blank = text[: len(text) - len(text.lstrip(" \t"))]
        self._kept.append(text[len(blank) :])
        return f"{blank}pass {_MARK}-kept:{len(self._kept) - 1}"


def _rewritten(raw: str, cell: _Cell, new: str) -> str:
    """The raw text with the cell's source ``new``; a line that stays is written as it was."""
    first, last = cell.spans[0], cell.spans[-1]
    lines = _split(new) if cell.listed else [new]
    ascii_only = raw.isascii()  # most writers escape nothing, some escape everything
    strings: list[str] = []
    matcher = difflib.SequenceMatcher(None, cell.lines, lines, autojunk=False)
    for kind, start, end, new_start, new_end in matcher.get_opcodes():
        if kind == "equal":
            strings += [raw[slice(*span)] for span in cell.spans[start:end]]
        else:
            strings += [json.dumps(line, ensure_ascii=ascii_only) for line in lines[new_start:new_end]]
    between = raw[first[1] : cell.spans[1][0]] if len(cell.spans) > 1 else ", "
    return raw[: first[0]] + between.join(strings) + raw[last[1] :]


def _split(text: str) -> list[str]:
    """Lines with their ends, as notebooks store them; ``str.splitlines`` would also split at a form feed."""
    return [line for line in re.split(r"(?<=\n)", text) if line]


def _code_cells(raw: str) -> Iterator[_Cell]:
    try:
        book = json.loads(raw)
        cells = book["cells"] if _is_python(book.get("metadata", {})) else []
        spans: dict[tuple, tuple[int, int]] = {}
        _strings(raw, _skip(raw, 0), (), spans)
        for i, cell in enumerate(cells):
            if cell["cell_type"] != "code" or not cell["source"]:
                continue
            path = ("cells", i, "source")
            if isinstance(cell["source"], str):
                yield _Cell(i + 1, (spans[path],), (cell["source"],), listed=False)
            else:
                yield _Cell(i + 1, tuple(spans[(*path, k)] for k in range(len(cell["source"]))), tuple(cell["source"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotebookError(f"not a notebook of format 4 ({type(error).__name__}: {error})") from None


def _is_python(metadata: dict) -> bool:
    language = metadata.get("language_info", {}).get("name") or metadata.get("kernelspec", {}).get("language")
    return language is None or "python" in language.lower()


def _strings(raw: str, at: int, path: tuple, spans: dict[tuple, tuple[int, int]]) -> int:
    """Put the place of every string of the JSON value that begins at ``at`` into ``spans``; returns where it ends."""
    if raw[at] == '"':
        end = scanstring(raw, at + 1)[1]
        spans[path] = (at, end)
        return end
    if raw[at] not in "[{":
        return _ATOM.match(raw, at).end()  # pyright: ignore[reportOptionalMemberAccess]
    mapping, index = raw[at] == "{", 0
    at = _skip(raw, at + 1)
    while raw[at] not in "]}":
        key: object = index
        if mapping:
            key, at = scanstring(raw, at + 1)
            at = _skip(raw, _skip(raw, at) + 1)  # behind the colon
        at, index = _skip(raw, _strings(raw, at, (*path, key), spans)), index + 1
        at = _skip(raw, at + 1) if raw[at] == "," else at
    return at + 1


def _skip(raw: str, at: int) -> int:
    return _SPACE.match(raw, at).end()  # pyright: ignore[reportOptionalMemberAccess]
