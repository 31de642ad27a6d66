"""log_softmax and logsigmoid in place of softmax and sigmoid."""

from __future__ import annotations

import libcst as cst

from softdraw_doctor.finding import Cannot, Edits
from softdraw_doctor.imports import renamed, spelled
from softdraw_doctor.operations import Operation, Program
from softdraw_doctor.rewrite import COMMENTED, commented, joined, replaced

_LOGSIGMOID = "torch.nn.functional.logsigmoid"


def log_form(program: Program, operation: Operation) -> Edits:
    """The call becomes that of its logarithm."""
    func = operation.call.func
    if operation.form == "module" and operation.constructor is not None:
        return Cannot("the layer is made elsewhere: make it nn.LogSoftmax or nn.LogSigmoid there")
    if operation.form == "law":
        logarithm = ".logits" if operation.kind == "softmax" else "F.logsigmoid of .logits"
        return Cannot(f"the distribution has it: {logarithm}")
    if operation.form == "tail" or operation.input is None:
        return Cannot("the model ends in it: let it return the logarithm, or the logits")
    if operation.form == "function":
        name = program.name(func) or ""
        new = f"{name.rpartition('.')[0]}.log_softmax" if operation.kind == "softmax" else _LOGSIGMOID
        return renamed(program, func, new)
    if operation.kind == "softmax" and isinstance(func, cst.Attribute) and func.attr.value == "softmax":
        return replaced(program, func.attr, "log_softmax")
    if operation.kind == "sigmoid" and isinstance(func, cst.Attribute) and func.attr.value == "sigmoid":
        return _as_function(program, operation.call, operation.input)
    return Cannot("it works in place")


def _as_function(program: Program, call: cst.Call, tensor: cst.BaseExpression) -> Edits:
    """``tensor.sigmoid()`` becomes ``logsigmoid(tensor)``."""
    (start, end), (first, last) = program.span(call), program.span(tensor)
    if commented(program, start, first) or commented(program, last, end):
        return COMMENTED
    text, edits = spelled(program, call, _LOGSIGMOID)
    return joined(edits, replaced(program, call, f"{text}({program.text_of(tensor)})"))
