"""A file's imports: how a name from torch can be written at a place, which imports to add, which to delete."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import libcst as cst
from libcst.metadata import GlobalScope, ImportAssignment

from softdraw_doctor.finding import Cannot, Edit, Edits
from softdraw_doctor.rewrite import commented, joined, replaced
from softdraw_doctor.source import LINE_END, Source

Statement = cst.Import | cst.ImportFrom


def renamed(source: Source, func: cst.BaseExpression, new: str) -> Edits:
    """``func``, a name imported from torch, becomes ``new``, a full name, in the spelling that the file uses."""
    module, _, last = new.rpartition(".")
    if isinstance(func, cst.Attribute) and (source.name(func.value) or "") == module:
        return replaced(source, func.attr, last)
    text, edits = _beside(source, func, new) if isinstance(func, cst.Name) else ("", ())
    if not text:
        text, edits = spelled(source, func, new)
    if isinstance(edits, Cannot) and (rooted := _from_root(source, func, new)):
        text, edits = rooted, ()
    return joined(edits, replaced(source, func, text))


def spelled(source: Source, at: cst.CSTNode, new: str) -> tuple[str, Edits]:
    """How the full name ``new`` can be written at the node ``at``, and the import that must be added for that."""
    found = [
        local + new[len(full) :]
        for statement in _before(source, at)
        for local, full in _bindings(statement)
        if (new == full or new.startswith(full + ".")) and _means(source, at, local, full)
    ]
    if found:
        return min(found, key=len), ()
    module, _, last = new.rpartition(".")
    if not _free(source, at, last):
        return last, Cannot(f"the name {last} may be taken in this file: import {module} first")
    first = itertools.dropwhile(lambda line: not _only_imports(line), source.module.body)
    block = list(itertools.takewhile(_only_imports, first))
    if not block or source.span(block[-1])[1] > source.span(at)[0]:
        return last, Cannot(f"it needs {module}, which nothing at the top of the file imports: import it there")
    end = _end_of_line(source, block[-1])
    return last, (Edit(end, end, f"{source.module.default_newline}from {module} import {last}"),)


def _from_root(source: Source, func: cst.BaseExpression, new: str) -> str:
    """``new`` from the module that ``func`` begins with: ``th.nn.functional.logsigmoid`` for ``th.sigmoid``."""
    while isinstance(func, cst.Attribute):
        func = func.value
        full = source.name(func)
        if full is not None and new.startswith(full + "."):
            return source.text_of(func) + new[len(full) :]
    return ""


def _beside(source: Source, func: cst.Name, new: str) -> tuple[str, Edits]:
    """``new`` taken from a ``from module import ...`` that the file has already: (name, the edit that adds it)."""
    module, _, last = new.rpartition(".")
    for statement in _before(source, func):
        if not isinstance(statement, cst.ImportFrom) or _module(statement) != module or _star(statement):
            continue
        present = [local for local, full in _bindings(statement) if full == new]
        if any(_means(source, func, local, new) for local in present):
            return present[0], ()
        if not present and _free(source, func, last):
            end = source.span(_aliases(statement)[-1])[1]
            return last, (Edit(end, end, f", {last}"),)
    return "", ()


def without_unused_imports(before: Source, after: Source, keep: Collection[str] = ()) -> tuple[Edit, ...]:
    """Deletes from ``after`` the imports whose names ``before`` mentioned and ``after`` does not.

    ``keep`` are names that other files import from this one; "*" stands for all. The imports of a package's
    ``__init__`` stay for the same reason. So does an import with a comment, which may be a ``noqa`` that asks for it.
    """
    if after.path.endswith("__init__.py") or "*" in keep:
        return ()
    gone = _mentioned(before) - _mentioned(after) - set(keep)
    edits: list[Edit] = []
    for statement in _imports(after):
        if not _star(statement) and any(_bound(a) in gone for a in _aliases(statement)):
            edits += _deleted(after, statement, gone)
    return tuple(edits)


def _deleted(source: Source, statement: Statement, gone: set[str]) -> list[Edit]:
    """The edits that take the names ``gone`` out of one import, or none where a comment would go with them."""
    aliases = _aliases(statement)
    kept = [i for i, alias in enumerate(aliases) if _bound(alias) not in gone]
    line: Any = source.parents[statement]
    end = _end_of_line(source, line)
    if commented(source, source.span(line)[0], end):
        return []
    if not kept:
        return [Edit(source.span(line)[0], _after_newline(source, end), "")] if len(line.body) == 1 else []
    spans = [source.span(alias) for alias in aliases]
    within = [Edit(spans[i][0], spans[i + 1][0], "") for i in range(kept[-1]) if i not in kept]
    behind = [Edit(spans[kept[-1]][1], spans[-1][1], "")] if kept[-1] + 1 < len(aliases) else []
    return within + behind


def _mentioned(source: Source) -> set[str]:
    """Every name that the code may use: outside the imports, and in one-line strings (``__all__``, annotations)."""
    importing = {id(s) for s in _imports(source)}
    found: set[str] = set()
    for node in source.nodes(cst.Name):
        parent = source.parents[node]
        if isinstance(parent, cst.Attribute) and parent.attr is node:
            continue
        if not any(id(a) in importing for a in source.ancestors(node)):
            found.add(node.value)
    for node in source.nodes(cst.SimpleString):
        if "\n" not in node.value and not isinstance(source.parents[node], cst.Expr):
            found.update(re.findall(r"\w+", node.value))
    return found


def _means(source: Source, at: cst.CSTNode, local: str, full: str) -> bool:
    """Whether ``local``, written at the node ``at``, is the imported ``full`` and nothing else."""
    top = {id(statement) for statement in _imports(source)}
    found = source.seen(at, local)
    return bool(found) and all(
        isinstance(a, ImportAssignment)
        and isinstance(a.scope, GlobalScope)
        and id(a.node) in top
        and {f for name, f in _bindings(a.node) if name == local} == {full}  # pyright: ignore[reportArgumentType]
        for a in found
    )


def _free(source: Source, at: cst.CSTNode, name: str) -> bool:
    """Whether a new global ``name`` would be seen at the node ``at`` and change nothing else."""
    starred = any(_star(statement) for statement in source.nodes(cst.ImportFrom))
    return not (starred or source.seen(at, name) or list(source.globals[name]))


def _only_imports(line: cst.CSTNode) -> bool:
    return isinstance(line, cst.SimpleStatementLine) and all(isinstance(s, Statement) for s in line.body)


def _imports(source: Source) -> Iterable[Statement]:
    """The import statements at the top level of the file."""
    for line in source.module.body:
        if isinstance(line, cst.SimpleStatementLine):
            yield from (s for s in line.body if isinstance(s, (cst.Import, cst.ImportFrom)))


def _before(source: Source, at: cst.CSTNode) -> Iterator[Statement]:
    """The top-level imports that stand before the node ``at``, so that they have run when it does."""
    start = source.span(at)[0]
    return (statement for statement in _imports(source) if source.span(statement)[1] <= start)


def _end_of_line(source: Source, line: cst.CSTNode) -> int:
    """The byte at which the statement's last line ends; a comment on it stands before."""
    end = source.span(line)[1]
    newline = re.search(rb"\r|\n", source.data[end:])
    return end + newline.start() if newline else len(source.data)


def _after_newline(source: Source, end: int) -> int:
    newline = re.match(LINE_END.pattern.encode(), source.data[end:])
    return end + newline.end() if newline else end


def _module(statement: cst.ImportFrom) -> str | None:
    return None if statement.relative or statement.module is None else _dotted(statement.module)


def _dotted(node: cst.BaseExpression) -> str:
    return f"{_dotted(node.value)}.{node.attr.value}" if isinstance(node, cst.Attribute) else node.value  # pyright: ignore


def _star(statement: Statement) -> bool:
    return isinstance(statement.names, cst.ImportStar)


def _aliases(statement: Statement) -> list[cst.ImportAlias]:
    return list(statement.names)  # pyright: ignore[reportArgumentType]


def _bound(alias: cst.ImportAlias) -> str:
    return alias.evaluated_alias or alias.evaluated_name.partition(".")[0]


def _bindings(statement: Statement) -> list[tuple[str, str]]:
    """(local name, full name) of everything that the statement binds."""
    if _star(statement) or (isinstance(statement, cst.ImportFrom) and _module(statement) is None):
        return []
    prefix = f"{_module(statement)}." if isinstance(statement, cst.ImportFrom) else ""
    return [
        (_bound(a), prefix + a.evaluated_name if prefix or a.evaluated_alias else _bound(a))
        for a in _aliases(statement)
    ]
