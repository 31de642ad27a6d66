"""Edits of a source: small replacements of bytes, so that everything else stays as it was."""

from __future__ import annotations

from collections.abc import Iterable

import libcst as cst

from softdraw.doctor.finding import Cannot, Edit, Edits
from softdraw.doctor.operations import Operation, Program

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


def replaced(program: Program, node: cst.CSTNode, text: str) -> Edits:
    return (Edit(*program.span(node), text),)


def unwrapped(program: Program, outer: cst.BaseExpression, inner: cst.BaseExpression) -> Edits:
    """``outer``, which contains ``inner``, becomes ``inner``."""
    (start, end), (first, last) = program.span(outer), program.span(inner)
    if b"#" in program.data[start:first] + program.data[last:end]:
        return Cannot("a comment stands inside the call that would go")
    text = program.text_of(inner)
    parent = program.parents[outer]
    broken = "\n" in text and not isinstance(parent, cst.Arg)
    bare = isinstance(inner, _ATOMS) or inner.lpar
    if (not bare and not isinstance(parent, _OPEN)) or (broken and not inner.lpar) or isinstance(inner, cst.NamedExpr):
        text = f"({text})"
    return (Edit(start, end, text),)


def stripped(program: Program, operation: Operation) -> Edits:
    """The operation's call becomes its input."""
    if operation.form == "tail" or operation.input is None:
        return Cannot("the model ends in it: take it off there, and apply it where probabilities are read")
    if isinstance(operation.call.func, cst.Attribute) and operation.call.func.attr.value.endswith("_"):
        return Cannot("it works in place")
    if any(a.keyword is not None and a.keyword.value == "out" for a in operation.call.args):
        return Cannot("it writes to out=")
    return unwrapped(program, operation.call, operation.input)


def renamed(program: Program, func: cst.BaseExpression, new: str) -> Edits:
    """``func``, a name imported from torch, becomes ``new``, a full name, written the way the file writes its own."""
    module, _, last = new.rpartition(".")
    if isinstance(func, cst.Attribute) and (program.name(func.value) or "") == module:
        return replaced(program, func.attr, last)
    if isinstance(func, cst.Name):
        for statement in _imports(program):
            if isinstance(statement, cst.ImportFrom) and _module(statement) == module and not _star(statement):
                return joined(_added(program, statement, last), replaced(program, func, _local(statement, last)))
    text, edits = reachable(program, new)
    return joined(edits, replaced(program, func, text))


def reachable(program: Program, new: str) -> tuple[str, Edits]:
    """How the file can write the full name ``new``, and the import that it needs for that, if any."""
    found = [
        local + new[len(full) :]
        for statement in _imports(program)
        for local, full in _bindings(statement)
        if (new == full or new.startswith(full + ".")) and len(list(program.globals[local])) == 1
    ]
    if found:
        return min(found, key=len), ()
    module, _, last = new.rpartition(".")
    if list(program.globals[last]):
        return last, Cannot(f"the file has another {last}")
    imports = list(_imports(program))
    if not imports:
        return last, Cannot("no import at the top of the file tells where to put another one")
    end = program.span(program.parents[imports[-1]])[1]
    return last, (Edit(end, end, f"{program.module.default_newline}from {module} import {last}"),)


def without_unused_imports(before: Program, after: Program) -> tuple[Edit, ...]:
    """What takes out of ``after`` the imports that ``before`` used and ``after`` does not.

    A package's ``__init__`` keeps its imports: others may take the names from there.
    """
    edits: list[Edit] = []
    if after.path.endswith("__init__.py"):
        return ()
    for statement in _imports(after):
        gone = {name for name, _ in _bindings(statement) if _used(before, name) and not _used(after, name)}
        if not gone:
            continue
        kept = [a for a in statement.names if _bound(a) not in gone]  # pyright: ignore[reportGeneralTypeIssues]
        if kept:
            kept[-1] = kept[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
            node = statement.with_changes(names=kept)
            edits.append(Edit(*after.span(statement), after.module.code_for_node(node)))
        elif len(after.parents[statement].body) == 1:
            edits.append(Edit(*_whole_line(after, after.parents[statement]), ""))
    return tuple(edits)


def applied(data: bytes, groups: Iterable[tuple[Edit, ...]]) -> tuple[bytes, int]:
    """``data`` with every group of edits that no earlier group stands in the way of, and how many groups those were."""
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


def _imports(program: Program) -> Iterable[cst.Import | cst.ImportFrom]:
    """The import statements at the top level of the file."""
    for line in program.module.body:
        if isinstance(line, cst.SimpleStatementLine):
            yield from (s for s in line.body if isinstance(s, (cst.Import, cst.ImportFrom)))


def _module(statement: cst.ImportFrom) -> str | None:
    return None if statement.relative or statement.module is None else _dotted(statement.module)


def _dotted(node: cst.BaseExpression) -> str:
    return f"{_dotted(node.value)}.{node.attr.value}" if isinstance(node, cst.Attribute) else node.value  # pyright: ignore


def _star(statement: cst.Import | cst.ImportFrom) -> bool:
    return isinstance(statement.names, cst.ImportStar)


def _bound(alias: cst.ImportAlias) -> str:
    return alias.evaluated_alias or alias.evaluated_name.partition(".")[0]


def _bindings(statement: cst.Import | cst.ImportFrom) -> list[tuple[str, str]]:
    """(local name, full name) of everything the statement binds."""
    if _star(statement) or (isinstance(statement, cst.ImportFrom) and _module(statement) is None):
        return []
    prefix = f"{_module(statement)}." if isinstance(statement, cst.ImportFrom) else ""
    return [
        (_bound(a), prefix + a.evaluated_name if prefix or a.evaluated_alias else _bound(a))
        for a in statement.names  # pyright: ignore[reportGeneralTypeIssues]
    ]


def _local(statement: cst.ImportFrom, name: str) -> str:
    return next((_bound(a) for a in statement.names if a.evaluated_name == name), name)  # pyright: ignore


def _added(program: Program, statement: cst.ImportFrom, name: str) -> Edits:
    aliases: list[cst.ImportAlias] = list(statement.names)  # pyright: ignore
    if any(a.evaluated_name == name for a in aliases):
        return ()
    if list(program.globals[name]):
        return Cannot(f"the file has another {name}")
    end = program.span(aliases[-1])[1]
    return (Edit(end, end, f", {name}"),)


def _used(program: Program, name: str) -> bool:
    return any(len(a.references) for a in program.globals[name])


def _whole_line(program: Program, line: cst.CSTNode) -> tuple[int, int]:
    start, end = program.span(line)
    newline = program.data.find(b"\n", end)
    return start, len(program.data) if newline < 0 else newline + 1
