"""What the checks of hand-written noise share: uniform and exponential numbers, and what is done to them."""

from __future__ import annotations

import re

import libcst as cst

from softdraw_doctor.operations import Operation, Program

_DOUBLE = re.compile(r"float64|double")
_EPS = re.compile(r"^_*(eps|epsilon|tiny|small|min_?(value|real)?)_*\d*$", re.IGNORECASE)


def plain(program: Program, value: cst.BaseExpression) -> cst.BaseExpression:
    """``value`` without variables, reshaping, casts and moves around it."""
    for _ in range(8):
        if isinstance(value, cst.Name) and _filled(program, value):
            break
        before, value = value, program.peeled(program.value(value))[0]
        if value is before:
            break
    return value


def without_eps(program: Program, value: cst.BaseExpression) -> tuple[cst.BaseExpression, str]:
    """``value`` without an added small number or a clamp, and the text of that number ("" if there was none)."""
    value = plain(program, value)
    if isinstance(value, cst.BinaryOperation) and isinstance(value.operator, (cst.Add, cst.Subtract)):
        for small, rest in ((value.right, value.left), (value.left, value.right)):
            if is_small(program, small):
                return plain(program, rest), program.text_of(small)
    if isinstance(value, cst.Call):
        arguments = [arg.value for arg in value.args]
        name = program.name(value.func) or ""
        if name.startswith(("torch.clamp", "torch.clip", "torch.maximum", "torch.max")) and arguments:
            inner, arguments = arguments[0], arguments[1:]
        elif isinstance(value.func, cst.Attribute) and re.match(r"clamp|clip|add_?$", value.func.attr.value):
            inner = value.func.value
        else:
            return value, ""
        small = next((program.text_of(a) for a in arguments if is_small(program, a)), "")
        if small:
            return plain(program, inner), small
    return value, ""


def is_small(program: Program, value: cst.BaseExpression) -> bool:
    name = value.attr if isinstance(value, cst.Attribute) else value
    if isinstance(name, cst.Name) and _EPS.match(name.value):
        return True
    value = program.value(value)
    return isinstance(value, cst.Float) and 0 < abs(float(value.value)) < 1e-3


def negated(program: Program, value: cst.BaseExpression) -> cst.BaseExpression | None:
    """x of ``-x``, ``x.neg()``, ``torch.neg(x)`` and ``x * -1``."""
    value = plain(program, value)
    if isinstance(value, cst.UnaryOperation) and isinstance(value.operator, cst.Minus):
        return plain(program, value.expression)
    if isinstance(value, cst.BinaryOperation) and isinstance(value.operator, cst.Multiply):
        for one, rest in ((value.left, value.right), (value.right, value.left)):
            if program.text_of(one) in ("-1", "-1.0", "(-1)"):
                return plain(program, rest)
    if isinstance(value, cst.Call):
        if program.name(value.func) in ("torch.neg", "torch.negative") and value.args:
            return plain(program, value.args[0].value)
        if isinstance(value.func, cst.Attribute) and value.func.attr.value in ("neg", "neg_", "negative"):
            return plain(program, value.func.value)
    return None


def logarithm(program: Program, value: cst.BaseExpression | None) -> cst.BaseExpression | None:
    """x of ``torch.log(x)``, also where a function of this file takes the logarithm."""
    operation = program.operation(value)
    return of_logarithm(operation) if operation is not None and operation.kind == "log" else None


def of_logarithm(log: Operation) -> cst.BaseExpression | None:
    return log.call.args[0].value if log.form == "tail" and log.call.args else log.input


def uniform(program: Program, value: cst.BaseExpression) -> bool:
    """``torch.rand(...)``, ``x.uniform_()`` and ``Uniform(0, 1).sample()``."""
    value = plain(program, value)
    if isinstance(value, cst.Name):
        return _filled(program, value) == "uniform_"
    operation = program.operation(value)
    if operation is not None:
        return operation.kind in ("rand", "uniform_")
    sampled = isinstance(value, cst.Call) and isinstance(value.func, cst.Attribute)
    if not (sampled and value.func.attr.value in ("sample", "rsample")):  # pyright: ignore
        return False
    law = program.value(value.func.value)  # pyright: ignore
    return isinstance(law, cst.Call) and (program.name(law.func) or "") in (
        "torch.distributions.Uniform",
        "torch.distributions.uniform.Uniform",
    )


def exponential(program: Program, value: cst.BaseExpression) -> tuple[str, str]:
    """The function that makes exponential noise of ``value``, "log" or "exponential_" or "", and its eps.

    The noise is ``-log(u)`` or ``x.exponential_()`` or a power of it.
    """
    value, outer = without_eps(program, value)
    if isinstance(value, cst.BinaryOperation) and isinstance(value.operator, cst.Power):
        return exponential(program, value.left)
    if isinstance(value, cst.Call) and isinstance(value.func, cst.Attribute):
        method = value.func.attr.value
        if method == "exponential_":
            return method, outer
        if method in ("pow", "pow_"):
            return exponential(program, value.func.value)
    if isinstance(value, cst.Name) and _filled(program, value) == "exponential_":
        return "exponential_", outer
    inner = logarithm(program, negated(program, value))
    if inner is None and outer:  # eps - log(u): what is left is the logarithm itself
        inner = logarithm(program, value)
    if inner is None:
        return "", ""
    rest, eps = without_eps(program, inner)
    return "log" if uniform(program, rest) else "", eps or outer


def _filled(program: Program, name: cst.Name) -> str:
    """The method of a statement such as ``name.exponential_()`` that fills the variable with noise, or ""."""
    for read in program.reads(name):
        method = program.parents[read]
        call = program.parents[method]
        if not isinstance(method, cst.Attribute) or method.attr.value not in ("exponential_", "uniform_"):
            continue
        if isinstance(call, cst.Call) and isinstance(program.parents[call], cst.Expr):
            return method.attr.value
    return ""


def double(program: Program, *values: cst.CSTNode) -> bool:
    """Whether float64 is named in the expressions or in what their variables were given."""
    texts = [program.text_of(value) for value in values]
    names = [n for value in values for n in _names(program, value)]
    texts += [program.text_of(given) for name in names if (given := program.definition(name)) is not None]
    return any(_DOUBLE.search(text) for text in texts)


def _names(program: Program, value: cst.CSTNode) -> list[cst.Name]:
    return [n for n in program.nodes(cst.Name) if value in program.ancestors(n) or n is value]


def remedy(eps: str, is_double: bool, noise: str = "log") -> str:
    """What is wrong with the form at hand."""
    if noise == "exponential_" and not is_double:
        return "on CUDA exponential_() is never below 2**-24, so rare categories are drawn too seldom"
    if is_double and eps:
        return f"{eps} cuts the tail even in float64, which takes twice the memory"
    if is_double:
        return "right, but float64 takes twice the memory of float32"
    if eps:
        return f"{eps} cuts a tail, and so does the uniform's own step of 2**-24"
    return "the uniform can be 0, and its step of 2**-24 cuts the tail at 16.6"
