"""The doctor as a flake8 plugin: codes SD, all checks that are on by default."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from softdraw_doctor import __version__
from softdraw_doctor.engine import examine
from softdraw_doctor.report import described
from softdraw_doctor.runner import chosen


class Plugin:
    name = "softdraw-doctor"
    version = __version__

    def __init__(self, tree: ast.AST, lines: Sequence[str], filename: str = "-") -> None:
        self._text, self._path = "".join(lines), filename

    def run(self) -> Iterator[tuple[int, int, str, type]]:
        for f in examine(self._text, self._path, chosen()):
            yield f.line, f.column - 1, f"{f.code} {described(f)}", type(self)
