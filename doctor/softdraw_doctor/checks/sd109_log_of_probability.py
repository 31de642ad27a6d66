from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from softdraw_doctor.checks.likelihood import exposed, read_once, written_into
from softdraw_doctor.checks.logarithms import log_form
from softdraw_doctor.checks.noise import without_eps
from softdraw_doctor.finding import Cannot, Check, Edit, Edits, Finding
from softdraw_doctor.operations import Operation, Origin, Program
from softdraw_doctor.rewrite import COMMENTED, commented, exposing
from softdraw_doctor.vocabulary import spellings


class LogOfProbability(Check):
    """The logarithm of a softmax or of a sigmoid, in two steps.

    The probability underflows first: where log_softmax gives -200, log(softmax) gives -inf, and its gradient is NaN.
    An eps or a clamp inside the logarithm hides that: log(p + 1e-8) never falls below -18.4, and its gradient vanishes
    there, which is where the model is most wrong. log(1 - sigmoid(x)) is -inf above 17, where logsigmoid(-x) is -17.

    Wrong:  torch.log(torch.softmax(x, dim=-1));     x.sigmoid().log();   torch.log(1 - torch.sigmoid(x) + 1e-8)
    Right:  torch.log_softmax(x, dim=-1);            F.logsigmoid(x);     F.logsigmoid(-x)

    With an eps or a clamp it is not rewritten: the value changes where the eps counted.
    """

    code = "SD109"
    needs = (spellings("log"), spellings("softmax", "sigmoid"))

    def run(self, source: Program) -> Iterator[Finding]:
        for log in source.of("log"):
            origin = source.origin(log.input)
            if log.input is None:
                continue
            if origin is None or origin.operation.kind not in ("softmax", "sigmoid"):
                yield from self._floored(source, log)
                continue
            right = "log_softmax" if origin.operation.kind == "softmax" else "logsigmoid"
            message = f"the logarithm of a {origin.operation.kind}: -inf where {right} is finite"
            yield self.found(source, log.call, message, _edits(source, log, origin))

    def _floored(self, source: Program, log: Operation) -> Iterator[Finding]:
        """The logarithm of a probability plus eps, of a clamped one, of 1 - sigmoid(x)."""
        if log.input is None:
            return
        value, eps = without_eps(source, log.input)
        rest = _complement(value)
        if rest is not None and not eps:
            rest, eps = without_eps(source, rest)
        origin = source.origin(value if rest is None else rest)
        kinds = ("sigmoid",) if rest is not None else ("softmax", "sigmoid")
        if origin is None or origin.operation.kind not in kinds:
            return
        right = (
            "logsigmoid(-x)"
            if rest is not None
            else "logsigmoid"
            if kinds[-1] == origin.operation.kind
            else "log_softmax"
        )
        wrong = f"{eps} floors it, and its gradient vanishes there" if eps else f"-inf where {right} is finite"
        edits = Cannot(f"compute it from the logits with {right}")
        yield self.found(source, log.call, f"the logarithm of a {origin.operation.kind}: {wrong}", edits)


def _complement(value: cst.BaseExpression) -> cst.BaseExpression | None:
    """x of ``1 - x``."""
    if isinstance(value, cst.BinaryOperation) and isinstance(value.operator, cst.Subtract):
        one = value.left
        return value.right if isinstance(one, (cst.Integer, cst.Float)) and one.evaluated_value == 1 else None
    return None


def _edits(program: Program, log: Operation, origin: Origin) -> Edits:
    if origin.forked or not all(read_once(program, name) for name in origin.names):
        return Cannot("the probabilities are used elsewhere too: compute the logarithm from the logits")
    target = program.parents[log.call]
    names = [t.target for t in target.targets] if isinstance(target, cst.Assign) else []
    if any(not isinstance(name, cst.Name) or written_into(program, name) for name in names):
        return Cannot("the logarithm is changed in place, which autograd allows of log and not of log_softmax")
    if isinstance(log.call.func, cst.Attribute) and log.call.func.attr.value == "log_":
        return Cannot("it works in place")
    if log.input is None or any(a.keyword and a.keyword.value == "out" for a in log.call.args):
        return Cannot("it writes to out=")
    inner = log_form(program, origin.operation)
    if isinstance(inner, Cannot):
        return inner
    (start, end), (first, last) = program.span(log.call), program.span(log.input)
    if commented(program, start, first) or commented(program, last, end):
        return COMMENTED
    broken = b"\n" in program.data[first:last] and not log.input.lpar  # its lines were inside the call's parentheses
    left, right = ("(", ")") if broken else ("", "")
    return exposing((*inner, Edit(start, first, left), Edit(last, end, right)), exposed(program, *origin.names))
