"""Edits of a source: small replacements of bytes, so that everything else stays as it was."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import libcst as cst

from softdraw_doctor.finding import Cannot, Edit, Edits
from softdraw_doctor.operations import Operation
from softdraw_doctor.source import Source

COMMENTED = Cannot("the rewrite would delete a comment")
_ATOMS = (cst.Name, cst.Attribute, cst.Call, cst.Subscript, cst.BaseNumber)
_OPEN = (cst.Arg, cst.Assign, cst.AnnAssign, cst.Return, cst.Expr)


def joined(*parts: Edits) -> Edits:
    """All the edits, or the first reason why there are none."""
    edits: list[Edit] = []
    for part in parts:
        if isinstance(part, Cannot):
            return part
        edits += part
    return tuple(edits)


def exposing(edits: Edits, name: str) -> Edits:
    """The edits with a note that they change the value of ``name``, which other files can use; "" is no such name."""
    return edits if isinstance(edits, Cannot) or not name else tuple(replace(edit, exposes=name) for edit in edits)


def commented(source: Source, start: int, end: int) -> bool:
    """Whether a comment may stand between two bytes (or a string with its sign, which a caller takes for one too)."""
    return b"#" in source.data[start:end]


def replaced(source: Source, node: cst.CSTNode, text: str) -> Edits:
    return (Edit(*source.span(node), text),)


def unwrapped(source: Source, outer: cst.BaseExpression, inner: cst.BaseExpression) -> Edits:
    """``outer``, which contains ``inner``, becomes ``inner``."""
    (start, end), (first, last) = source.span(outer), source.span(inner)
    if commented(source, start, first) or commented(source, last, end):
        return COMMENTED
    text = source.text_of(inner)
    parent = source.parents[outer]
    broken = "\n" in text and not isinstance(parent, cst.Arg)
    bare = isinstance(inner, _ATOMS) or inner.lpar
    if (not bare and not isinstance(parent, _OPEN)) or (broken and not inner.lpar) or isinstance(inner, cst.NamedExpr):
        text = f"({text})"
    return (Edit(start, end, text),)


def stripped(source: Source, operation: Operation) -> Edits:
    """The operation's call becomes its input."""
    if operation.form == "law":
        return Cannot("the distribution was given logits: give the loss those")
    if operation.form == "tail" or operation.input is None:
        return Cannot("the model ends in it: remove it there, and apply it where probabilities are read")
    if isinstance(operation.call.func, cst.Attribute) and operation.call.func.attr.value.endswith("_"):
        return Cannot("it works in place")
    if any(a.keyword is not None and a.keyword.value == "out" for a in operation.call.args):
        return Cannot("it writes to out=")
    return unwrapped(source, operation.call, operation.input)


def applied(data: bytes, groups: Iterable[tuple[Edit, ...]]) -> tuple[bytes, int]:
    """``data`` with every group of edits that overlaps no earlier group, and how many groups those were."""
    taken: set[Edit] = set()
    count = 0
    for group in groups:
        new = set(group) - taken
        if not any(_overlap(a, b) for a in new for b in taken | new if a is not b):
            taken |= new
            count += 1
    for edit in sorted(taken, reverse=True):
        data = data[: edit.start] + edit.text.encode() + data[edit.end :]
    return data, count


def _overlap(a: Edit, b: Edit) -> bool:
    return (a.start < b.end and b.start < a.end) or ((a.start, a.end) == (b.start, b.end) and a.start != a.end)
