"""A finding, the edits that would mend it, and the contract of a check."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from libcst import CSTNode

    from softdraw.doctor.operations import Program


@dataclass(frozen=True, order=True)
class Edit:
    """Bytes ``start`` to ``end`` of the UTF-8 source become ``text``."""

    start: int
    end: int
    text: str


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
    unsafe: bool = False  # the edits change what the code computes, on purpose
    likely: bool = False  # the doctor infers and does not know; such a finding never has edits
    reason: str = ""  # why there are no edits

    @property
    def fixable(self) -> bool:
        return bool(self.edits)


class Check(ABC):
    """One kind of mistake. A subclass's docstring is its explanation: the cause, the wrong numbers, the right code.

    A file is looked at by a check only if each of the regular expressions in ``needs`` is found in its text.
    ``symptoms`` are regular expressions for the error messages that the mistake ends in.
    """

    code: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    symptoms: ClassVar[tuple[str, ...]] = ()
    default: ClassVar[bool] = True

    @abstractmethod
    def run(self, source: Program) -> Iterator[Finding]:
        """The findings in one file."""

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
        return Finding(source.path, line, column, self.code, message, () if likely else edits, unsafe, likely)

    @property
    def explanation(self) -> str:
        return inspect.cleandoc(type(self).__doc__ or "")
