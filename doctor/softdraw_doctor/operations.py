"""The calls of torch operations in a source, in every form, and the operation that made a value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import libcst as cst

from softdraw_doctor.values import Made, Values
from softdraw_doctor.vocabulary import BY_FUNCTION, BY_MODULE, CONTAINERS, LAWS, METHODS, SEQUENTIAL, SIGNATURES


@dataclass(frozen=True, eq=False)
class Operation:
    """A call of a known operation.

    ``form`` is "function", "partial", "method", "module" (a call of an instance whose ``constructor`` is known) or
    "tail" (a call of a model or a function that ends in the operation; its input is not known), or "law" (a
    distribution that was made with logits, whose ``probs`` are read).
    """

    kind: str
    form: str
    call: cst.Call
    arguments: dict[str, cst.Arg] = field(default_factory=dict)
    input: cst.BaseExpression | None = None
    constructor: cst.Call | None = None
    holders: tuple[cst.BaseExpression, ...] = ()  # of the module, nearest first
    direct: bool = True  # what is called is written at the call, or is one module that this file makes


@dataclass(frozen=True, eq=False)
class Origin:
    """The operation that made a value, the variables and attributes it went through, and the casts between.

    ``forked``: the value is made in several places, of which ``operation`` is one; they are of the same kind.
    """

    operation: Operation
    names: tuple[cst.BaseExpression, ...] = ()
    shapes: bool = False
    casts: tuple[str, ...] = ()
    forked: bool = False


class Program(Values):
    """A source whose torch operations are known."""

    @cached_property
    def operations(self) -> list[Operation]:
        """Every known operation; a call of a criterion that a condition chooses is one of each kind."""
        found: list[Operation] = []
        for call in self.nodes(cst.Call):
            operation = self.operation(call)
            found += [operation] if operation is not None else self._alternatives(call)
        return found

    def of(self, *kinds: str) -> Iterator[Operation]:
        return (op for op in self.operations if op.kind in kinds)

    def operation(self, call: cst.CSTNode | None, seen: frozenset[int] = frozenset()) -> Operation | None:
        """The operation that ``call`` calls, if it is known."""
        if not isinstance(call, cst.Call):
            return None
        name = self.name(call.func)
        if name is not None and name in BY_FUNCTION:
            return self._bound(BY_FUNCTION[name], "function", call)
        if name is not None and super(Values, self).name(call.func) is not None and not self._is_parallel(call):
            return None
        if isinstance(call.func, cst.Attribute):
            kind = METHODS.get(call.func.attr.value)
            if kind and self.own_class(call.func.value) is None and self._may_be_tensor(call.func.value):
                return Operation(kind, "method", call, input=call.func.value)
        return self._partial(call) or self._instance(call, seen)

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

    def _bound(self, kind: str, form: str, call: cst.Call, made: Made | None = None) -> Operation:
        names = SIGNATURES.get(kind, ("input",))
        arguments: dict[str, cst.Arg] = {}
        for i, arg in enumerate(call.args):
            if arg.star:
                break
            name = arg.keyword.value if arg.keyword else names[i] if i < len(names) else f"[{i}]"
            arguments[name] = arg
        first = arguments.get(names[0])
        constructor = made.node if made and isinstance(made.node, cst.Call) else None
        holders, direct = (made.holders, made.direct) if made else ((), True)
        if constructor is not None and super(Values, self).name(constructor.func) is None:
            direct = False  # its class comes from a variable or a container
        return Operation(kind, form, call, arguments, first.value if first else None, constructor, holders, direct)

    def _partial(self, call: cst.Call) -> Operation | None:
        """A call of a function from a container, or of ``functools.partial(function, name=value)``."""
        made = self.value(call.func)
        if isinstance(made, cst.Call) and self.name(made.func) == "functools.partial" and len(made.args) > 0:
            if any(arg.keyword is None for arg in made.args[1:]):
                return None
            made = self.value(made.args[0].value)
        kind = BY_FUNCTION.get(self.name(made) or "")
        return self._bound(kind, "partial", call, Made(call, (), False)) if kind else None

    def _instance(self, call: cst.Call, seen: frozenset[int]) -> Operation | None:
        """A call of a module instance, or of a function of this file: a known layer, or what ends in an operation."""
        function = self.function_of(call.func)
        if function is not None and not (isinstance(call.func, cst.Attribute) and call.func.attr.value == "forward"):
            kind = self._ends_in(function, seen) if isinstance(function, cst.FunctionDef) else None
            return Operation(kind, "tail", call, direct=False) if kind else None
        func = call.args[0].value if self._is_parallel(call) else call.func
        found = [op for made in self.made(func) if (op := self._of_instance(call, made, seen)) is not None]
        return found[0] if found and len({op.kind for op in found}) == 1 else None

    def _is_parallel(self, call: cst.Call) -> bool:
        """``data_parallel(module, inputs)``, which calls the module."""
        return bool(call.args) and (self.name(call.func) or "").startswith("torch.nn.parallel.data_parallel")

    def _alternatives(self, call: cst.Call) -> list[Operation]:
        if self.function_of(call.func) is not None or super(Values, self).name(call.func) is not None:
            return []
        found = (self._of_instance(call, made, frozenset()) for made in self.made(call.func))
        return list({op.kind: op for op in found if op is not None}.values())

    def _of_instance(self, call: cst.Call, made: Made, seen: frozenset[int]) -> Operation | None:
        node = made.node
        if isinstance(node, cst.Call):
            name = self.name(node.func) or ""
            if name in BY_MODULE:
                return self._bound(BY_MODULE[name], "module", call, made)
            if name == SEQUENTIAL:
                kind = self._last_of(node, seen)
                return Operation(kind, "tail", call, constructor=node) if kind else None
        owner = node if isinstance(node, cst.ClassDef) else self.class_of(node.func)
        forward = self.method(owner, "forward") if owner is not None else None
        kind = self._ends_in(forward, seen) if forward is not None else self._head(owner, seen)
        return Operation(kind, "tail", call) if kind else None

    def _head(self, owner: cst.ClassDef | None, seen: frozenset[int]) -> str | None:
        """Of a subclass of Sequential: what ``super().__init__(...)`` is given last."""
        if owner is None or id(owner) in seen or SEQUENTIAL not in {self.name(base.value) for base in owner.bases}:
            return None
        for call in self.nodes(cst.Call):
            inner = (
                call.func.value if isinstance(call.func, cst.Attribute) and call.func.attr.value == "__init__" else None
            )
            named = inner.func if isinstance(inner, cst.Call) else None
            if isinstance(named, cst.Name) and named.value == "super" and self.enclosing(call, cst.ClassDef) is owner:
                return self._last_of(call, seen | {id(owner)})
        return None

    def _last_of(self, sequential: cst.Call, seen: frozenset[int]) -> str | None:
        """The operation of the last layer that a Sequential is made with."""
        if not sequential.args:
            return None
        arg = sequential.args[-1]
        last: cst.BaseExpression | None = arg.value
        value = self.value(arg.value)
        if arg.star or (isinstance(value, (cst.Dict, cst.Call)) and len(sequential.args) == 1):
            last = self._last_element(arg.value) or (None if arg.star else last)
        if last is None or id(sequential) in seen:
            return None
        for made in self.made(last):
            found = self._of_instance(sequential, made, seen | {id(sequential)})
            return found.kind if found else None
        return None

    def _last_element(self, expression: cst.BaseExpression) -> cst.BaseExpression | None:
        """The last element of a list, of a dict, of an OrderedDict of pairs; also after ``layers.append(element)``."""
        if isinstance(expression, cst.Name) and (added := self._appended(expression)) is not None:
            return added
        value = self.value(expression)
        if isinstance(value, cst.BinaryOperation) and isinstance(value.operator, cst.Add):
            return self._last_element(value.right)
        while isinstance(value, cst.Call) and self.name(value.func) in CONTAINERS and value.args:
            value = self.value(value.args[0].value)
        if not isinstance(value, (cst.List, cst.Tuple, cst.Dict)) or not value.elements:
            return None
        last = value.elements[-1].value
        pair = isinstance(last, cst.Tuple) and len(last.elements) == 2
        return last.elements[1].value if pair else last  # pyright: ignore[reportAttributeAccessIssue]

    def _appended(self, name: cst.Name) -> cst.BaseExpression | None:
        """What ``name.append(...)`` or ``name += [...]`` added last, before the name is read here."""
        blocks = {id(a) for a in self.ancestors(name) if isinstance(a, (cst.IndentedBlock, cst.Module))}
        here, added = self.span(name)[0], {}
        for read in self.reads(name):
            call = self.parents[self.parents[read]] if isinstance(self.parents[read], cst.Attribute) else None
            if isinstance(call, cst.Call) and call.func.attr.value == "append" and call.args:  # pyright: ignore
                added[self.span(read)[0]] = (call, call.args[0].value)
        for assignment in self.assignments(name):
            parent = self.parents[assignment.node]
            if isinstance(parent, cst.AugAssign) and isinstance(parent.value, cst.List) and parent.value.elements:
                added[self.span(parent)[0]] = (parent, parent.value.elements[-1].value)
        before = [added[start] for start in sorted(added) if start < here]
        if not before:
            return None
        statement, last = before[-1]
        return last if id(self.enclosing(statement, cst.IndentedBlock, cst.Module)) in blocks else None

    def _ends_in(self, function: cst.FunctionDef, seen: frozenset[int], key: int | str | None = None) -> str | None:
        """The operation in which every return of the function ends, or the element ``key`` of what it returns."""
        if id(function) in seen:
            return None
        values = [self._element(value, key) for value in self.results(function)]
        kinds = {self._returned(value, seen | {id(function)}) for value in values}
        return kinds.pop() if len(kinds) == 1 else None

    def _element(self, value: cst.BaseExpression, key: int | str | None) -> cst.BaseExpression | None:
        if key is None:
            return value
        value = self.value(value)
        if isinstance(value, cst.Dict):
            pairs = [e for e in value.elements if isinstance(e, cst.DictElement)]
            return next((e.value for e in pairs if getattr(e.key, "evaluated_value", None) == key), None)
        elements = value.elements if isinstance(value, (cst.Tuple, cst.List)) else ()
        return elements[key].value if isinstance(key, int) and key < len(elements) else None

    def _part(self, call: cst.BaseExpression, key: int | str) -> Operation | None:
        """The operation that made one of the things that a function or a model of this file returns."""
        if not isinstance(call, cst.Call):
            return None
        function = self.function_of(call.func) or self._forward_or_lambda(call.func)
        kind = self._ends_in(function, frozenset(), key) if isinstance(function, cst.FunctionDef) else None
        return Operation(kind, "tail", call, direct=False) if kind else None

    def _taken(self, expression: cst.BaseExpression | None) -> Operation | None:
        """As `_part`, of ``name`` in ``name, other = call()`` and ``call()["name"]``; ``probs`` of a distribution."""
        if isinstance(expression, cst.Attribute) and expression.attr.value == "probs":
            return self._of_law(self.value(expression.value))
        if isinstance(expression, cst.Name) and (found := self.unpacked(expression)) is not None:
            return self._part(self.value(found[0]), found[1])
        if isinstance(expression, cst.Subscript) and len(expression.slice) == 1:
            index = expression.slice[0].slice
            if isinstance(index, cst.Index) and isinstance(index.value, cst.SimpleString):
                return self._part(self.value(expression.value), str(index.value.evaluated_value))
        return None

    def _of_law(self, made: cst.BaseExpression) -> Operation | None:
        """What ``Categorical(logits=x).probs`` is made by."""
        kind = LAWS.get(self.name(made.func) or "") if isinstance(made, cst.Call) else None
        if kind is None or not any(a.keyword is not None and a.keyword.value == "logits" for a in made.args):  # pyright: ignore
            return None
        return Operation(kind, "law", made, direct=False)  # pyright: ignore[reportArgumentType]

    def _returned(self, value: cst.BaseExpression | None, seen: frozenset[int]) -> str | None:
        if value is None:
            return None
        value = self.value(self.peeled(self.value(value))[0])
        choices = self.choices(value)
        if choices:
            kinds = {self._returned(choice, seen) for choice in choices}
            return kinds.pop() if len(kinds) == 1 else None
        found = self.operation(self.peeled(value)[0], seen)
        return found.kind if found else None

    def origin(self, expression: cst.BaseExpression | None, depth: int = 4) -> Origin | None:
        """The operation that made the value of ``expression``, through variables, reshaping, indexing and casts."""
        names: tuple[cst.BaseExpression, ...] = ()
        shapes, casts = False, ()
        for _ in range(8):
            if expression is None:
                return None
            expression, more = self.followed(expression)
            names = (*names, *more)
            taken = self._taken(expression)
            if taken is not None:
                return Origin(taken, (*names, expression), shapes, casts)
            before = expression
            expression, reshaped, cast = self.peeled(expression)
            shapes, casts = shapes or reshaped, (*casts, *cast)
            if expression is before:
                break
        operation = self.operation(expression)
        if operation:
            return Origin(operation, names, shapes, casts)
        found = [self.origin(choice, depth - 1) for choice in self.choices(expression)] if expression and depth else []
        known = [o for o in found if o is not None]
        if not known or len({(o.operation.kind, bool(o.casts)) for o in known}) > 1:
            return None
        if expression is not None and len(known) < len(found) and self.every(expression):
            return None
        return Origin(known[0].operation, names, True, (*casts, *known[0].casts), forked=True)
