"""What an expression stands for: through variables, attributes, containers, aliases of imports, wrappers of modules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import libcst as cst

from softdraw_doctor.classes import Classes
from softdraw_doctor.vocabulary import CASTS, CONTAINERS, OF_MODULES, SHAPES, SHAPES_OF, WRAPPERS

_DEPTH = 12


@dataclass(frozen=True, eq=False)
class Made:
    """A constructor call, or a class of this file, behind a called module; the holders it is reached through."""

    node: cst.Call | cst.ClassDef
    holders: tuple[cst.BaseExpression, ...] = ()
    direct: bool = True  # a rewrite of the constructor changes this one module and no other


class Values(Classes):
    """A source in which the value of an expression can be asked for."""

    def name(self, node: cst.CSTNode, depth: int = _DEPTH) -> str | None:
        """As in `Source`, also through ``F = torch.nn.functional`` and ``getattr(nn, "BCELoss")``."""
        found = super().name(node)
        if found is not None or not depth:
            return found
        if isinstance(node, cst.Attribute):
            before = self.name(node.value, depth - 1)
            return f"{before}.{node.attr.value}" if before is not None else None
        if isinstance(node, (cst.Name, cst.Subscript)):
            given = self._given(node)
            return self.name(given, depth - 1) if isinstance(given, (cst.Name, cst.Attribute, cst.Call)) else None
        if isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value == "getattr":
            module = self.name(node.args[0].value, depth - 1) if len(node.args) >= 2 else None
            word = node.args[1].value if module else None
            return f"{module}.{word.evaluated_value}" if isinstance(word, cst.SimpleString) else None
        return None

    def value(self, expression: cst.BaseExpression) -> cst.BaseExpression:
        """``expression``, or what the variable it names was given."""
        return self.followed(expression)[0]

    def followed(self, expression: cst.BaseExpression) -> tuple[cst.BaseExpression, tuple[cst.BaseExpression, ...]]:
        """The value, and the variables, attributes and elements of containers that it went through."""
        through: tuple[cst.BaseExpression, ...] = ()
        while len(through) < _DEPTH:
            given = self._given(expression)
            if given is None:
                break
            through = through if isinstance(expression, cst.NamedExpr) else (*through, expression)
            if given is expression:
                break
            expression = given
        return expression, through

    def _given(self, expression: cst.BaseExpression) -> cst.BaseExpression | None:
        if isinstance(expression, cst.Name):
            return self.definition(expression)
        if isinstance(expression, cst.Attribute):
            return self.attribute(expression) or self._member(expression.value, expression.attr.value)
        if isinstance(expression, cst.NamedExpr):
            return expression.value
        if isinstance(expression, cst.Subscript) and len(expression.slice) == 1:
            index = expression.slice[0].slice
            key = index.value if isinstance(index, cst.Index) else None
            if isinstance(key, (cst.SimpleString, cst.Integer)):
                return self._member(expression.value, key.evaluated_value)
        return None

    def _member(self, container: cst.BaseExpression, key: object) -> cst.BaseExpression | None:
        """An element of a literal dict or list, also inside ModuleDict(...)."""
        if (isinstance(container, cst.Name) and container.value == "self") or id(container) in self._asked:
            return None
        self._asked.add(id(container))
        try:
            return self._element_of(self.value(container), key)
        finally:
            self._asked.discard(id(container))

    @cached_property
    def _asked(self) -> set[int]:
        """The containers whose value is being looked for: ``self.items = self.items.rows`` leads back to itself."""
        return set()

    def _element_of(self, made: cst.BaseExpression, key: object) -> cst.BaseExpression | None:
        while isinstance(made, cst.Call) and made.args:
            func = made.func
            name = self.name(func) or (func.value if isinstance(func, cst.Name) else "")
            if name == "dict" or (name.endswith("Dict") and made.args[0].keyword is not None):
                return next((a.value for a in made.args if a.keyword is not None and a.keyword.value == key), None)
            if name not in CONTAINERS:
                return None
            made = self.value(made.args[0].value)
        if isinstance(made, cst.Dict):
            pairs = [e for e in made.elements if isinstance(e, cst.DictElement)]
            return next((e.value for e in pairs if getattr(e.key, "evaluated_value", None) == key), None)
        if isinstance(made, (cst.List, cst.Tuple)) and isinstance(key, int) and 0 <= key < len(made.elements):
            element = made.elements[key]
            return element.value if isinstance(element, cst.Element) else None
        return None

    def choices(self, expression: cst.BaseExpression) -> list[cst.BaseExpression]:
        """The values that an expression can have, where a condition or its function's callers decide."""
        if isinstance(expression, cst.IfExp):
            return [expression.body, expression.orelse]
        if isinstance(expression, cst.Name):
            return self._branches(expression) or self._arguments(expression)
        return []

    def every(self, expression: cst.BaseExpression) -> bool:
        """Whether every choice must be known: those of a parameter are mistakes one by one."""
        return not isinstance(expression, cst.Name) or bool(self._branches(expression))

    def _branches(self, name: cst.Name) -> list[cst.BaseExpression]:
        """What the branches of an ``if`` that stands just before give the variable, where every branch does."""
        bindings = {id(a.node): a.node for a in self.assignments(name)}
        for parent in self.ancestors(name):
            if isinstance(parent, (cst.Module, cst.IndentedBlock)):
                inside = {id(a) for b in bindings.values() for a in self.ancestors(b)}
                start = self.span(name)[0]
                before = [s for s in parent.body if id(s) in inside and self.span(s)[1] <= start]
                if before:
                    return self._by_branch(before[-1], list(bindings.values()))
            if isinstance(parent, (cst.FunctionDef, cst.Lambda, cst.ClassDef)):
                return []
        return []

    def _by_branch(self, statement: cst.CSTNode, bindings: list) -> list[cst.BaseExpression]:
        found: list[cst.BaseExpression] = []
        part: cst.CSTNode | None = statement
        while isinstance(part, (cst.If, cst.Else)):
            body = part.body.body if isinstance(part.body, cst.IndentedBlock) else ()
            bound = [b for b in bindings if any(a in body for a in self.ancestors(b))]
            inside = bool(bound) and self.enclosing(bound[-1], cst.IndentedBlock) is part.body
            value = self._assigned(bound[-1]) if inside else None
            if value is None:
                return []
            found.append(value)
            if isinstance(part, cst.Else):
                return found
            part = part.orelse
        return []

    def _arguments(self, name: cst.Name) -> list[cst.BaseExpression]:
        """What the calls in this file give the parameter, where the function does not decide by its parameters."""
        params = [a.node for a in self.assignments(name)]
        if len(params) != 1 or not isinstance(params[0], cst.Param):
            return []
        function = self.enclosing(params[0], cst.FunctionDef, cst.Lambda)
        if function is None or self._decides(name, function):
            return []
        calls = self._calls_of.get(id(function), ())
        return [a for call in calls if (a := self._argument(call, function, params[0])) is not None]

    def _decides(self, name: cst.Name, function: cst.CSTNode) -> bool:
        """Whether ``name`` stands in a branch; which calls come there is then not known."""
        for above in self.ancestors(name):
            if above is function:
                return False
            if isinstance(above, (cst.If, cst.IfExp, cst.Match)):
                return True
        return False

    @cached_property
    def _calls_of(self) -> dict[int, list[cst.Call]]:
        """The calls of every function of this file."""
        found: dict[int, list[cst.Call]] = {}
        for call in self.nodes(cst.Call):
            function = self.function_of(call.func) or self._forward_or_lambda(call.func)
            if function is not None:
                found.setdefault(id(function), []).append(call)
        return found

    def _forward_or_lambda(self, func: cst.BaseExpression) -> cst.FunctionDef | cst.Lambda | None:
        if isinstance(func, cst.Name) and isinstance(given := self.definition(func), cst.Lambda):
            return given
        owners = [
            m.node if isinstance(m.node, cst.ClassDef) else self.class_of(m.node.func)
            for m in self.made(func, chosen=False)
        ]
        return self.method(owners[0], "forward") if len(owners) == 1 and owners[0] is not None else None

    def _argument(
        self, call: cst.Call, function: cst.FunctionDef | cst.Lambda, param: cst.Param
    ) -> cst.BaseExpression | None:
        for arg in call.args:
            if arg.keyword is not None and arg.keyword.value == param.name.value:
                return arg.value
        order = [*function.params.posonly_params, *function.params.params]
        if param not in order or any(a.star for a in call.args):
            return None
        bound = isinstance(self.enclosing(function, cst.ClassDef, cst.FunctionDef), cst.ClassDef)
        place = order.index(param) - (bound and isinstance(function, cst.FunctionDef))
        positional = [a.value for a in call.args if a.keyword is None]
        return positional[place] if 0 <= place < len(positional) else None

    def _default(self, name: cst.BaseExpression) -> list[cst.BaseExpression]:
        """The default of the parameter."""
        params = [a.node for a in self.assignments(name)] if isinstance(name, cst.Name) else []
        return [p.default for p in params if isinstance(p, cst.Param) and p.default is not None]

    def results(self, function: cst.FunctionDef) -> list[cst.BaseExpression]:
        """What a function returns, by its ``return`` statements."""
        return [r.value for r in self._returns_of.get(id(function), ()) if r.value is not None]

    @cached_property
    def _returns_of(self) -> dict[int, list[cst.Return]]:
        """The ``return`` statements of every function."""
        found: dict[int, list[cst.Return]] = {}
        for statement in self.nodes(cst.Return):
            found.setdefault(id(self.enclosing(statement, cst.FunctionDef, cst.Lambda)), []).append(statement)
        return found

    # Modules

    def made(self, func: cst.BaseExpression, chosen: bool = True) -> Iterator[Made]:
        """The constructor calls, or classes, of the instance that ``func`` is; several where a condition decides, none
        of them if not ``chosen``."""
        yield from self._made(func, (), True, _DEPTH, chosen)

    def _made(self, func: cst.BaseExpression, holders: tuple, direct: bool, depth: int, chosen: bool) -> Iterator[Made]:
        if not depth:
            return
        owner = self.own_class(func)
        if owner is None and isinstance(func, cst.Attribute) and func.attr.value == "forward":
            owner = self.own_class(func.value)
        if owner is not None:
            yield Made(owner, holders, direct)
            return
        value, through = self.followed(func)
        direct = direct and not any(isinstance(h, cst.Subscript) for h in through)
        holders = (*holders, *through)
        if isinstance(value, cst.Call):
            inner, function = self._wrapped(value), self.function_of(value.func)
            if inner is not None:
                yield from self._made(inner, holders, direct, depth - 1, chosen)
            elif function is not None:
                for result in self.results(function):
                    yield from self._made(result, holders, False, depth - 1, chosen)
            else:
                yield Made(value, holders, direct)
            return
        for choice in (*self.choices(value), *self._default(value)) if chosen else ():
            yield from self._made(choice, holders, False, depth - 1, chosen)

    def _wrapped(self, call: cst.Call) -> cst.BaseExpression | None:
        """The module that ``module.to(device)`` or ``DataParallel(module)`` is called on."""
        name = self.name(call.func)
        if name in WRAPPERS and call.args:
            return call.args[0].value
        if name is None and isinstance(call.func, cst.Attribute) and call.func.attr.value in OF_MODULES:
            return call.func.value
        return None

    # Tensors

    def peeled(self, value: cst.BaseExpression) -> tuple[cst.BaseExpression, bool, tuple[str, ...]]:
        """What is left without reshaping, indexing and casting at the end."""
        shapes, casts = False, ()
        while True:
            if isinstance(value, cst.Subscript):
                value, shapes = value.value, True
                continue
            if not isinstance(value, cst.Call):
                return value, shapes, casts
            name = self.name(value.func)
            if name in SHAPES_OF and value.args:
                value, shapes = value.args[0].value, True
                continue
            method = value.func.attr.value if isinstance(value.func, cst.Attribute) else ""
            if method not in SHAPES | CASTS or name is not None:
                return value, shapes, casts
            cast = method in CASTS and not self._moves(value)
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
