"""The classes and functions of a file, and what their attributes hold."""

from __future__ import annotations

from functools import cached_property

import libcst as cst

from softdraw_doctor.source import Source


class Classes(Source):
    """A source whose classes are known."""

    def class_of(self, name: cst.CSTNode) -> cst.ClassDef | None:
        """The class of this file that ``name`` refers to."""
        if not isinstance(name, cst.Name):
            return None
        found = [a.node for a in self.assignments(name)]
        return found[0] if len(found) == 1 and isinstance(found[0], cst.ClassDef) else None

    def own_class(self, node: cst.CSTNode) -> cst.ClassDef | None:
        """The class whose instance ``self`` is, for a node ``self`` in a method."""
        if not (isinstance(node, cst.Name) and node.value == "self"):
            return None
        function = self.enclosing(node, cst.FunctionDef)
        return self.enclosing(function, cst.ClassDef) if function is not None else None

    @cached_property
    def _attributes(self) -> dict[int, dict[str, list[cst.BaseExpression | None]]]:
        """For every class, what its methods store in each attribute of ``self``."""
        found: dict[int, dict[str, list[cst.BaseExpression | None]]] = {}
        for node in self.nodes(cst.Attribute):
            parent = self.parents[node]
            stored = isinstance(parent, (cst.AssignTarget, cst.AnnAssign, cst.AugAssign)) and parent.target is node
            stored = stored or (isinstance(parent, cst.Element) and self._is_target(parent))
            if stored and (owner := self.own_class(node.value)) is not None:
                found.setdefault(id(owner), {}).setdefault(node.attr.value, []).append(self._assigned(node))
        return found

    def _is_target(self, element: cst.Element) -> bool:
        return isinstance(self.parents.get(self.parents[element]), cst.AssignTarget)

    def attribute(self, node: cst.Attribute) -> cst.BaseExpression | None:
        """What ``self.name`` was given, if it is assigned once in its class, or in the nearest base that assigns it."""
        owner, name = self.own_class(node.value), node.attr.value
        for kind in self.bases(owner) if owner is not None else ():
            values = [*self._attributes.get(id(kind), {}).get(name, ()), *self._in_body(kind, name)]
            values = [v for v in values if not (isinstance(v, cst.Name) and v.value == "None")]
            if values:
                return values[0] if len(values) == 1 else None
        return None

    def _in_body(self, owner: cst.ClassDef, name: str) -> list[cst.BaseExpression | None]:
        lines = [s for line in owner.body.body if isinstance(line, cst.SimpleStatementLine) for s in line.body]
        targets = [t.target for s in lines if isinstance(s, cst.Assign) for t in s.targets]
        targets += [s.target for s in lines if isinstance(s, cst.AnnAssign) and s.value is not None]
        return [self._assigned(t) for t in targets if isinstance(t, cst.Name) and t.value == name]

    def bases(self, owner: cst.ClassDef) -> list[cst.ClassDef]:
        """The class and its bases that this file defines, nearest first."""
        found = [owner]
        for kind in found:
            more = [self.class_of(base.value) for base in kind.bases]
            found += [base for base in more if base is not None and base not in found]
        return found

    def method(self, owner: cst.ClassDef, name: str) -> cst.FunctionDef | None:
        """The method of the class, or of the nearest base that has it."""
        statements = (s for kind in self.bases(owner) for s in kind.body.body)
        return next((s for s in statements if isinstance(s, cst.FunctionDef) and s.name.value == name), None)

    def function_of(self, func: cst.CSTNode) -> cst.FunctionDef | None:
        """The function of this file, or the method of ``self``, that ``func`` refers to."""
        if isinstance(func, cst.Attribute):
            owner = self.own_class(func.value)
            return self.method(owner, func.attr.value) if owner is not None else None
        if not isinstance(func, cst.Name):
            return None
        found = [a.node for a in self.assignments(func)]
        return found[0] if len(found) == 1 and isinstance(found[0], cst.FunctionDef) else None
