from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from softdraw_doctor.finding import Cannot, Check, Finding
from softdraw_doctor.operations import Program
from softdraw_doctor.vocabulary import spellings


class GumbelByHand(Check):
    """Gumbel noise written by hand, with an eps literal in its logarithms.

    -log(-log(u + eps) + eps) is not Gumbel noise. The inner eps cuts the lower tail, the outer one the upper: with
    eps = 1e-20 it does nothing in float32 unless u is 0 or so near 1 that the inner logarithm is 0, and then gives 46,
    which wins every draw; with 1e-10 or 1e-6 rare events above 23 or 14 never happen. In half precision 1e-20 is 0 and
    the noise is infinite.

    Wrong:  g = -torch.log(-torch.log(torch.rand_like(x) + 1e-20) + 1e-20)
    Right:  softdraw.gumbel_softmax(x, tau), softdraw.gumbel_max(x), or softdraw.gumbel_noise(x.shape, seed=...)

    It is not rewritten: another generator draws other numbers from the same seed.
    """

    code = "SD204"
    needs = (spellings("log"), spellings("rand", "uniform_"))

    def run(self, source: Program) -> Iterator[Finding]:
        for outer in source.of("log"):
            if outer.input is None:
                continue
            first, eps = _without_eps(source, outer.input)
            first = _negated(source.value(first))
            inner = source.operation(first) if first is not None else None
            if inner is None or inner.kind != "log" or inner.input is None:
                continue
            uniform, other = _without_eps(source, inner.input)
            if (eps or other) and _is_uniform(source, uniform):
                edits = Cannot("another generator draws other numbers: use softdraw.gumbel_noise or gumbel_softmax")
                yield self.found(source, outer.call, "Gumbel noise by hand: eps cuts its tails", edits)


def _without_eps(program: Program, value: cst.BaseExpression) -> tuple[cst.BaseExpression, bool]:
    """``value`` without an added small constant or a clamp, and whether there was one."""
    value = program.value(value)
    if isinstance(value, cst.BinaryOperation) and isinstance(value.operator, (cst.Add, cst.Subtract)):
        for small, rest in ((value.right, value.left), (value.left, value.right)):
            if _is_small(program, small):
                return program.value(rest), True
    if isinstance(value, cst.Call) and isinstance(value.func, cst.Attribute) and "clamp" in value.func.attr.value:
        return program.value(value.func.value), any(_is_small(program, arg.value) for arg in value.args)
    return value, False


def _is_small(program: Program, value: cst.BaseExpression) -> bool:
    if isinstance(value, cst.Name) and value.value.lower().strip("_") in ("eps", "epsilon", "tiny"):
        return True
    value = program.value(value)
    return isinstance(value, cst.Float) and 0 < abs(float(value.value)) < 1e-3


def _negated(value: cst.BaseExpression) -> cst.BaseExpression | None:
    negative = isinstance(value, cst.UnaryOperation) and isinstance(value.operator, cst.Minus)
    return value.expression if negative else None  # pyright: ignore[reportAttributeAccessIssue]


def _is_uniform(program: Program, value: cst.BaseExpression) -> bool:
    operation = program.operation(program.value(value))
    return operation is not None and operation.kind in ("rand", "uniform_")
