"""A parsed file: names as torch knows them, and the value that reaches an expression."""

from __future__ import annotations

import dataclasses
import heapq
import re
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from operator import itemgetter
from typing import Any

import libcst as cst
from libcst.metadata import (
    Assignment,
    ByteSpanPositionProvider,
    GlobalScope,
    ImportAssignment,
    MetadataWrapper,
    QualifiedNameSource,
    ScopeProvider,
)

from softdraw_doctor.glance import parsed

LINE_END = re.compile("\r\n|\r|\n")  # str.splitlines knows more of them than Python's grammar does
_LOOPS = (cst.For, cst.While)


class Source:
    """One file's syntax tree with scopes, parents and byte spans; each is computed when it is first asked for."""

    def __init__(self, text: str, path: str = "<string>") -> None:
        self.path = path
        self.text = text
        self.data = text.encode()
        parsed(text)  # refuses what LibCST would not survive
        self._wrapper = MetadataWrapper(cst.parse_module(text), unsafe_skip_copy=True)
        self.module = self._wrapper.module

    @cached_property
    def parents(self) -> dict[cst.CSTNode, cst.CSTNode]:
        """The parent of every node but the module, in the order of the source; LibCST's provider is slower."""
        found: dict[cst.CSTNode, cst.CSTNode] = {}
        left: list[cst.CSTNode] = [self.module]
        while left:
            node = left.pop()
            children = _children(node)
            found.update((child, node) for child in children)
            left.extend(reversed(children))
        return found

    @cached_property
    def scopes(self) -> Any:
        return self._wrapper.resolve(ScopeProvider)

    @cached_property
    def _spans(self) -> Any:
        return self._wrapper.resolve(ByteSpanPositionProvider)

    @cached_property
    def globals(self) -> GlobalScope:
        return self.scopes[self.module.body[0]] if self.module.body else next(iter(self.scopes.values()))

    def nodes(self, *kinds: type) -> Iterator[Any]:
        """Every node of these kinds, in the order of the source."""
        found = [numbered for kind, numbered in self._by_kind.items() if issubclass(kind, kinds)]
        return (node for _, node in (found[0] if len(found) == 1 else heapq.merge(*found, key=itemgetter(0))))

    @cached_property
    def _by_kind(self) -> dict[type, list[tuple[int, cst.CSTNode]]]:
        """The nodes of each class with their places; asking every node for its kind takes a third of an analysis."""
        found: dict[type, list[tuple[int, cst.CSTNode]]] = {}
        for place, node in enumerate(self.parents):
            found.setdefault(type(node), []).append((place, node))
        return found

    def span(self, node: cst.CSTNode) -> tuple[int, int]:
        """First byte and the one after the last; the node's own parentheses, which LibCST leaves out, are inside."""
        span = self._spans[node]
        left, right = getattr(node, "lpar", None), getattr(node, "rpar", None)
        if not (isinstance(left, Sequence) and isinstance(right, Sequence) and left and right):
            return span.start, span.start + span.length
        last = self._spans[right[-1]]
        return self._spans[left[0]].start, last.start + last.length

    def text_of(self, node: cst.CSTNode) -> str:
        start, end = self.span(node)
        return self.data[start:end].decode()

    def position(self, node: cst.CSTNode) -> tuple[int, int]:
        """Line and column, both from 1."""
        before = self.data[: self.span(node)[0]].decode().replace("\r\n", "\n").replace("\r", "\n")
        return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1

    def comment(self, line: int) -> str:
        """The comment at the end of a line, or nothing."""
        comments = (node for node in self.nodes(cst.Comment) if self.position(node)[0] == line)
        return next((node.value for node in comments), "")

    def ancestors(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        while (parent := self.parents.get(node)) is not None:
            yield parent
            node = parent

    def enclosing(self, node: cst.CSTNode, *kinds: type) -> Any:
        return next((a for a in self.ancestors(node) if isinstance(a, kinds)), None)

    # Names

    def name(self, node: cst.CSTNode) -> str | None:
        """The full name of what ``node`` refers to, if it was imported and nothing else is bound to that name."""
        root = node
        while isinstance(root, cst.Attribute):
            root = root.value
        scope = self.scopes.get(node) if isinstance(root, cst.Name) else None
        if scope is None:
            return None
        found = scope.get_qualified_names_for(node)
        if len(found) != 1 or next(iter(found)).source is not QualifiedNameSource.IMPORT:
            return None
        return next(iter(found)).name

    def seen(self, node: cst.CSTNode, name: str) -> list[Any]:
        """What the word ``name`` would refer to if it stood at ``node``."""
        scope = self.scopes.get(node)
        return list(scope[name]) if scope is not None else []

    def assignments(self, name: cst.Name) -> list[Assignment]:
        """Everything bound to this name in the scope it is read from."""
        scope = self.scopes.get(name)
        found = scope[name.value] if scope is not None else ()
        return [a for a in found if isinstance(a, Assignment)]

    def reads(self, name: cst.Name) -> list[cst.CSTNode]:
        """Every place where the variable that ``name`` belongs to is read or deleted."""
        return list({id(access.node): access.node for a in self.assignments(name) for access in a.references}.values())

    # Values

    def definition(self, name: cst.Name) -> cst.BaseExpression | None:
        """The one expression whose value ``name`` has here, or None where that is not known."""
        target = self.binding(name)
        return self._assigned(target) if target is not None else None

    def unpacked(self, name: cst.Name) -> tuple[cst.BaseExpression, int] | None:
        """For ``a, name = value``: the value, and the place of the name."""
        target = self.binding(name)
        element = self.parents.get(target) if target is not None else None
        row = self.parents.get(element) if isinstance(element, cst.Element) else None
        statement = self.parents.get(self.parents[row]) if isinstance(row, (cst.Tuple, cst.List)) else None
        if not isinstance(statement, cst.Assign) or any(isinstance(e, cst.StarredElement) for e in row.elements):  # pyright: ignore
            return None
        return statement.value, row.elements.index(element)  # pyright: ignore

    def binding(self, name: cst.Name) -> cst.CSTNode | None:
        """The one target through which ``name`` got the value that it has here."""
        assignments = self.assignments(name)
        if not assignments or any(isinstance(a, ImportAssignment) for a in assignments):
            return None
        if len(assignments) == 1 and assignments[0].scope is not self.scopes.get(name):
            return assignments[0].node  # of the module, a class body or an outer function
        targets = [a.node for a in assignments]
        if all(isinstance(a.scope, GlobalScope) for a in assignments) and self._in_a_row(name, targets):
            return max(targets, key=lambda target: self.span(target)[0])  # what a function sees that runs later
        return self._reaching(name, targets)

    def _in_a_row(self, name: cst.Name, targets: list[Any]) -> bool:
        """Whether the statements of the module itself bind the name, and it is read inside a function."""
        lines = [self.enclosing(target, cst.SimpleStatementLine, cst.BaseCompoundStatement) for target in targets]
        outside = not isinstance(self.scopes.get(name), GlobalScope)
        return outside and all(isinstance(x, cst.SimpleStatementLine) and self.parents[x] is self.module for x in lines)

    def _reaching(self, name: cst.Name, bindings: list[Any]) -> cst.CSTNode | None:
        """Walk back over the statements before ``name``; a binding inside a branch or a loop ends the search."""
        binding = {id(a) for b in bindings for a in (b, *self.ancestors(b))}  # every node that binds the name somewhere
        node: cst.CSTNode = name
        for parent in self.ancestors(name):
            if isinstance(parent, (cst.Module, cst.IndentedBlock)):
                before = parent.body[: next(i for i, s in enumerate(parent.body) if s is node)]
                last = next((s for s in reversed(before) if id(s) in binding), None)
                if last is not None:
                    return self._only_binding(last, bindings)
            elif self._obscures(parent, bindings, id(parent) in binding):
                return None
            node = parent
        return None

    def _obscures(self, parent: cst.CSTNode, bindings: list[Any], binds: bool) -> bool:
        """Whether what stands before ``parent`` need not be what its inside sees."""
        if isinstance(parent, (cst.FunctionDef, cst.Lambda, cst.ClassDef)):
            return True
        if isinstance(parent, cst.SimpleStatementLine):
            return binds and len(parent.body) > 1
        if isinstance(parent, (cst.With, cst.Try, cst.TryStar, cst.Match)):
            return binds and self._binds_itself(parent, bindings)
        return binds and isinstance(parent, _LOOPS)

    def _only_binding(self, statement: cst.CSTNode, bindings: list[Any]) -> cst.CSTNode | None:
        here = [b for b in bindings if statement in self.ancestors(b)]
        if isinstance(statement, cst.With) and not self._binds_itself(statement, bindings):
            last = next((s for s in reversed(statement.body.body) if any(s in self.ancestors(b) for b in here)), None)
            return self._only_binding(last, bindings) if last is not None else None
        return here[0] if isinstance(statement, cst.SimpleStatementLine) and len(here) == 1 else None

    def _binds_itself(self, node: cst.CSTNode, bindings: list[Any]) -> bool:
        """A ``with ... as``, ``except ... as`` or pattern binds; a statement of the body is found on the way."""
        return any(
            node in (above := list(self.ancestors(b)))
            and not any(isinstance(a, cst.IndentedBlock) for a in above[: above.index(node)])
            for b in bindings
        )

    def _assigned(self, target: cst.CSTNode) -> cst.BaseExpression | None:
        """The value of ``target = value``, ``target: T = value`` and ``target := value``."""
        parent = self.parents.get(target)
        if isinstance(parent, cst.NamedExpr):
            return parent.value if parent.target is target else None
        if isinstance(parent, cst.Element):
            return self._opposite(parent)
        if isinstance(parent, cst.AssignTarget):
            parent = self.parents[parent]
        return parent.value if isinstance(parent, (cst.Assign, cst.AnnAssign)) else None

    def _opposite(self, element: cst.Element) -> cst.BaseExpression | None:
        """The value of ``b`` in ``a, b = 1, value``."""
        row = self.parents[element]
        statement = self.parents.get(self.parents[row])
        if not (isinstance(row, cst.Tuple) and isinstance(statement, cst.Assign) and len(statement.targets) == 1):
            return None
        values = statement.value.elements if isinstance(statement.value, (cst.Tuple, cst.List)) else ()
        plain = all(isinstance(e, cst.Element) for e in (*row.elements, *values))
        return values[row.elements.index(element)].value if plain and len(values) == len(row.elements) else None


def _children(node: cst.CSTNode) -> list[cst.CSTNode]:
    found: list[cst.CSTNode] = []
    for name in _fields(type(node)):
        value = getattr(node, name)
        if isinstance(value, cst.CSTNode):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += [item for item in value if isinstance(item, cst.CSTNode)]
    return found


@cache
def _fields(kind: type[cst.CSTNode]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))
