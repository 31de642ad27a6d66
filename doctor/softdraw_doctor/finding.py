"""A finding, the edits that would repair it, and the contract of a check."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from libcst import CSTNode

    from softdraw_doctor.glance import Glance
    from softdraw_doctor.operations import Program


@dataclass(frozen=True, order=True)
class Edit:
    """Bytes ``start`` to ``end`` of the UTF-8 source become ``text``.

    ``exposes`` names a variable or attribute whose value the edit changes and that other files can use.
    """

    start: int
    end: int
    text: str
    exposes: str = field(default="", compare=False)


@dataclass(frozen=True)
class Cannot:
    """Why a finding is not rewritten, and what to do by hand."""

    reason: str


Edits = tuple[Edit, ...] | Cannot


@dataclass(frozen=True)
class Finding:
    """One place in one file. ``line`` and ``column`` count from 1, columns in characters."""

    path: str
    line: int
    column: int
    code: str
    message: str
    edits: tuple[Edit, ...] = ()
    unsafe: bool = False  # the edits change what the code computes, or may change what another file computes
    likely: bool = False  # the doctor guesses; such a finding never has edits
    reason: str = ""  # why there are no edits, or why they are unsafe
    cell: int = 0  # of a notebook, from 1; lines and columns are then the cell's

    @property
    def place(self) -> str:
        """``path:line:column``; in a notebook the cell stands before the line."""
        return f"{self.path}:{f'cell {self.cell}:' if self.cell else ''}{self.line}:{self.column}"

    @property
    def fixable(self) -> bool:
        return bool(self.edits)


class Check(ABC):
    """One kind of mistake. A subclass's docstring is its explanation: the cause, the wrong numbers, the right code.

    ``needs`` are groups of words. A file can have a finding only if its code uses at least one word of each group as
    an identifier, however the code is laid out and whatever the imports are called. So a file without them is skipped.
    ``symptoms`` are regular expressions for the error messages in which the mistake ends.
    """

    code: ClassVar[str]
    needs: ClassVar[tuple[tuple[str, ...], ...]]
    symptoms: ClassVar[tuple[str, ...]] = ()
    default: ClassVar[bool] = True

    @abstractmethod
    def run(self, source: Program) -> Iterator[Finding]:
        """The findings in one file."""

    def possible(self, glance: Glance) -> bool:
        """Whether a file of that tree may have a finding. False must be certain; it saves the analysis."""
        return all(glance.names.intersection(group) for group in self.needs)

    def found(
        self,
        source: Program,
        node: CSTNode,
        message: str,
        edits: Edits = (),
        *,
        unsafe: bool = False,
        likely: bool = False,
    ) -> Finding:
        """A finding of this check at ``node``; what is only likely is never rewritten."""
        line, column = source.position(node)
        if isinstance(edits, Cannot):
            return Finding(source.path, line, column, self.code, message, likely=likely, reason=edits.reason)
        exposed = next((edit.exposes for edit in edits if edit.exposes), "")
        reason = f"other files may use {exposed}" if exposed else ""
        unsafe = unsafe or bool(exposed)
        return Finding(source.path, line, column, self.code, message, () if likely else edits, unsafe, likely, reason)

    @property
    def explanation(self) -> str:
        return inspect.cleandoc(type(self).__doc__ or "")
