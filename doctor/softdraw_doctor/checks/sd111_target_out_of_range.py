from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from softdraw_doctor.finding import Cannot, Check, Finding
from softdraw_doctor.operations import Program
from softdraw_doctor.vocabulary import spellings

_FILLED = {  # the place of the number among the arguments
    "torch.full": 1,
    "torch.full_like": 1,
    "torch.tensor": 0,
    "torch.as_tensor": 0,
    "torch.FloatTensor": 0,
}


class TargetOutOfRange(Check):
    """Binary cross-entropy is given a target below 0 or above 1.

    F.binary_cross_entropy raises "all elements of target should be between 0 and 1", on CUDA as a device-side assert.
    BCE-with-logits raises nothing: with target -1 the loss falls by 1 for every unit that the logit falls, without
    end, and with 1.1 by 0.1 for every unit that it rises.

    Off by default: --select SD111 turns it on.

    Wrong:  F.binary_cross_entropy(p, torch.full_like(p, -1.0))
    Right:  F.binary_cross_entropy(p, torch.zeros_like(p));   a target in [0, 1], smoothed or not
    """

    code = "SD111"
    symptoms = (r"all elements of target should be between 0 and 1", r"target_val >= zero && target_val <= one")
    needs = (
        spellings("bce", "bce_logits"),
        ("full", "full_like", "new_full", "fill_", "tensor", "as_tensor", "FloatTensor"),
    )
    default = False

    def run(self, source: Program) -> Iterator[Finding]:
        for loss in source.of("bce", "bce_logits"):
            target = loss.arguments.get("target")
            outside = [n for n in _numbers(source, target.value) if not 0 <= n <= 1] if target is not None else []
            if outside:
                message = f"binary cross-entropy with a target of {outside[0]:g}: it has no lower bound outside [0, 1]"
                yield self.found(source, loss.call, message, Cannot("which target was meant is not in the code"))


def _numbers(program: Program, value: cst.BaseExpression) -> list[float]:
    """The literal numbers that a tensor is made of."""
    value = program.peeled(program.value(value))[0]
    value = program.value(value)
    if not isinstance(value, cst.Call):
        return []
    place = _FILLED.get(program.name(value.func) or "")
    if place is None and isinstance(value.func, cst.Attribute):
        place = {"new_full": 1, "fill_": 0}.get(value.func.attr.value)
    named = [
        a.value for a in value.args if a.keyword is not None and a.keyword.value in ("fill_value", "value", "data")
    ]
    positional = [a.value for a in value.args if a.keyword is None]
    if place is None:
        return []
    return _literals(named[0] if named else positional[place] if place < len(positional) else None)


def _literals(value: cst.BaseExpression | None) -> list[float]:
    if isinstance(value, (cst.List, cst.Tuple)):
        return [n for element in value.elements for n in _literals(element.value)]
    negative = isinstance(value, cst.UnaryOperation) and isinstance(value.operator, cst.Minus)
    number = value.expression if negative else value  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
    if not isinstance(number, (cst.Integer, cst.Float)):
        return []
    return [-number.evaluated_value if negative else number.evaluated_value]
