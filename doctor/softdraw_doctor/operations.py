"""The calls of torch operations in a source, in every form, and the operation that made a value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import libcst as cst

from softdraw_doctor.source import Source
from softdraw_doctor.vocabulary import (
    BY_FUNCTION,
    BY_MODULE,
    CASTS,
    METHODS,
    SEQUENTIAL,
    SHAPES,
    SIGNATURES,
)


@dataclass(frozen=True, eq=False)
class Operation:
    """A call of a known operation.

    ``form`` is "function", "method", "module" (a call of an instance whose ``constructor`` is known) or "tail" (a call
    of a model that ends in the operation; its input is not known).
    """

    kind: str
    form: str
    call: cst.Call
    arguments: dict[str, cst.Arg] = field(default_factory=dict)
    input: cst.BaseExpression | None = None
    constructor: cst.Call | None = None


@dataclass(frozen=True, eq=False)
class Origin:
    """The operation that made a value, the variables it went through, and the casts between."""

    operation: Operation
    names: tuple[cst.Name, ...] = ()
    shapes: bool = False
    casts: tuple[str, ...] = ()


class Program(Source):
    """A source whose torch operations are known."""

    @cached_property
    def operations(self) -> list[Operation]:
        return [op for call in self.nodes(cst.Call) if (op := self.operation(call)) is not None]

    def of(self, kind: str) -> Iterator[Operation]:
        return (op for op in self.operations if op.kind == kind)

    def operation(self, call: cst.CSTNode | None) -> Operation | None:
        """The operation that ``call`` calls, if it is known."""
        if not isinstance(call, cst.Call):
            return None
        name = self.name(call.func)
        if name is not None:
            kind = BY_FUNCTION.get(name)
            return self._bound(kind, "function", call) if kind else None
        if isinstance(call.func, cst.Attribute):
            kind = METHODS.get(call.func.attr.value)
            if kind and self.own_class(call.func.value) is None and self._may_be_tensor(call.func.value):
                return Operation(kind, "method", call, input=call.func.value)
        return self._instance(call, frozenset())

    def _may_be_tensor(self, receiver: cst.BaseExpression) -> bool:
        """Not a module such as ``np``, nor what another library's function returned."""
        called = False
        while isinstance(receiver, (cst.Call, cst.Attribute, cst.Subscript)):
            if (name := self.name(receiver)) is not None:
                return name.startswith("torch.")
            called = called or isinstance(receiver, cst.Call)
            receiver = receiver.func if isinstance(receiver, cst.Call) else receiver.value
        name = self.name(receiver)
        return name is None or (called and name.startswith("torch."))

    def _bound(self, kind: str, form: str, call: cst.Call, constructor: cst.Call | None = None) -> Operation:
        names = SIGNATURES.get(kind, ("input",))
        arguments: dict[str, cst.Arg] = {}
        for i, arg in enumerate(call.args):
            if arg.star:
                break
            name = arg.keyword.value if arg.keyword else names[i] if i < len(names) else f"[{i}]"
            arguments[name] = arg
        first = arguments.get(names[0])
        return Operation(kind, form, call, arguments, first.value if first else None, constructor)

    def _instance(self, call: cst.Call, seen: frozenset[int]) -> Operation | None:
        """A call of a module instance: a known layer, or a model that ends in a known operation."""
        made = self._made(call.func)
        if isinstance(made, cst.Call):
            kind = BY_MODULE.get(self.name(made.func) or "")
            if kind:
                return self._bound(kind, "module", call, made)
            if self.name(made.func) == SEQUENTIAL and made.args and not made.args[-1].star:
                last = self.value(made.args[-1].value)
                kind = BY_MODULE.get(self.name(last.func) or "") if isinstance(last, cst.Call) else None
                return Operation(kind, "tail", call, constructor=made) if kind else None
        owner = made if isinstance(made, cst.ClassDef) else self.class_of(made.func) if made else None
        kind = self._tail(owner, seen) if owner is not None else None
        return Operation(kind, "tail", call) if kind else None

    def _made(self, func: cst.BaseExpression) -> cst.Call | cst.ClassDef | None:
        """The constructor call, or the class, of the instance that ``func`` is."""
        if (owner := self.own_class(func)) is not None:
            return owner
        if isinstance(func, cst.Attribute):
            if func.attr.value == "forward" and (owner := self.own_class(func.value)) is not None:
                return owner
            func = self.attribute(func) or func
        made = self.value(func)
        return made if isinstance(made, cst.Call) else None

    def holders(self, func: cst.BaseExpression) -> list[cst.BaseExpression]:
        """The attribute of ``self`` and the variables through which a call of ``func`` reaches the instance."""
        given = self.attribute(func) if isinstance(func, cst.Attribute) else None
        names = self.followed(given or func)[1]
        return [func, *names] if given is not None else list(names)

    def _tail(self, owner: cst.ClassDef, seen: frozenset[int]) -> str | None:
        """The operation in which every return of the class's ``forward`` ends."""
        forward = self.method(owner, "forward")
        if forward is None or id(owner) in seen:
            return None
        returns = [r for r in self._returns if self.enclosing(r, cst.FunctionDef, cst.Lambda) is forward]
        kinds = {self._returned(r.value, seen | {id(owner)}) for r in returns}
        return kinds.pop() if len(kinds) == 1 else None

    @cached_property
    def _returns(self) -> list[cst.Return]:
        return list(self.nodes(cst.Return))

    def _returned(self, value: cst.BaseExpression | None, seen: frozenset[int]) -> str | None:
        value = self._peeled(self.value(value))[0] if value is not None else None
        if not isinstance(value, cst.Call):
            return None
        named = self.name(value.func) is not None or (
            isinstance(value.func, cst.Attribute) and value.func.attr.value in METHODS
        )
        found = self.operation(value) if named else self._instance(value, seen)
        return found.kind if found else None

    def value(self, expression: cst.BaseExpression) -> cst.BaseExpression:
        """``expression``, or what the variable it names was given."""
        return self.followed(expression)[0]

    def followed(self, expression: cst.BaseExpression) -> tuple[cst.BaseExpression, tuple[cst.Name, ...]]:
        names: tuple[cst.Name, ...] = ()
        while isinstance(expression, cst.Name) and len(names) < 8:
            given = self.definition(expression)
            if given is None:
                break
            names, expression = (*names, expression), given
        return expression, names

    def _peeled(self, value: cst.BaseExpression) -> tuple[cst.BaseExpression, bool, tuple[str, ...]]:
        """What is left without reshaping, indexing and casting at the end."""
        shapes, casts = False, ()
        while True:
            if isinstance(value, cst.Subscript):
                value, shapes = value.value, True
                continue
            method = (
                value.func.attr.value if isinstance(value, cst.Call) and isinstance(value.func, cst.Attribute) else ""
            )
            if method not in SHAPES | CASTS or self.name(value.func) is not None:  # pyright: ignore[reportAttributeAccessIssue]
                return value, shapes, casts
            cast = method in CASTS and not self._moves(value)  # pyright: ignore[reportArgumentType]
            shapes = shapes or not cast
            casts = (*casts, method) if cast else casts
            value = value.func.value  # pyright: ignore[reportAttributeAccessIssue]

    def _moves(self, call: cst.Call) -> bool:
        """``x.to(device)``: a call that names devices alone and so changes no value."""
        return bool(call.args) and all(self._names_device(arg) for arg in call.args)

    def _names_device(self, arg: cst.Arg) -> bool:
        if arg.keyword is not None:
            return arg.keyword.value in ("device", "non_blocking", "copy", "memory_format")
        value = arg.value
        if isinstance(value, cst.SimpleString):
            return not str(value.evaluated_value).startswith("torch.")  # .type("torch.FloatTensor")
        if isinstance(value, cst.Call):
            return self.name(value.func) == "torch.device"
        name = value.attr if isinstance(value, cst.Attribute) else value
        return isinstance(name, cst.Name) and "device" in name.value.lower()

    def origin(self, expression: cst.BaseExpression | None) -> Origin | None:
        """The operation that made the value of ``expression``, through variables, reshaping, indexing and casts."""
        names: tuple[cst.Name, ...] = ()
        shapes, casts = False, ()
        for _ in range(8):
            if expression is None:
                return None
            expression, more = self.followed(expression)
            names = (*names, *more)
            expression, reshaped, cast = self._peeled(expression)
            shapes, casts = shapes or reshaped, (*casts, *cast)
            if not isinstance(expression, cst.Name) or self.definition(expression) is None:
                break
        operation = self.operation(expression)
        return Origin(operation, names, shapes, casts) if operation else None
