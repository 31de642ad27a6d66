from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import libcst as cst

from softdraw_doctor.finding import Cannot, Check, Edit, Edits, Finding
from softdraw_doctor.glance import Glance
from softdraw_doctor.operations import Program
from softdraw_doctor.rewrite import COMMENTED, commented

LOSSES = (
    "BCEWithLogitsLoss",
    "BCELoss",
    "MSELoss",
    "L1Loss",
    "CrossEntropyLoss",
    "NLLLoss",
    "KLDivLoss",
    "SmoothL1Loss",
)
# Names of a constructor's own arguments; two of these by position are no mistake.
_OWN = re.compile(
    r"(size_)?average|reduc|weight|ignore|^(true|false|none|beta|delta|log_target|label_smoothing)$", re.I
)


class ConstructorWithTensors(Check):
    """A loss module's constructor is given the prediction and the target.

    nn.BCEWithLogitsLoss(output, target) makes a module with weight=output and size_average=target; it computes nothing.
    With more than one element it stops at "Boolean value of Tensor with more than one value is ambiguous"; with one
    element it builds the module in silence, and .backward() fails later. BCEWithLogitsLoss, BCELoss, MSELoss, L1Loss,
    CrossEntropyLoss, NLLLoss, KLDivLoss and SmoothL1Loss all do.

    Wrong:  loss = nn.BCEWithLogitsLoss(output, target)
    Right:  loss = nn.BCEWithLogitsLoss()(output, target)
    """

    code = "SD103"
    needs = (LOSSES,)
    symptoms = (
        r"Boolean value of Tensor with more than one value is ambiguous",
        rf"'({'|'.join(LOSSES)})' object has no attribute '(backward|item|detach)'",
        rf"bool value of .* ambiguous.*({'|'.join(LOSSES)})",
    )

    def possible(self, glance: Glance) -> bool:
        """A call with two positional arguments; most files with these losses have none."""
        calls = (n for n in glance.nodes if isinstance(n, ast.Call) and len(n.args) > 1)
        return any(glance.called(call).intersection(LOSSES) for call in calls)

    def run(self, source: Program) -> Iterator[Finding]:
        for call in source.nodes(cst.Call):
            name = source.name(call.func) or ""
            if not (name.startswith("torch.nn.") and name.rpartition(".")[2] in LOSSES):
                continue
            positional = [a for a in call.args if a.keyword is None and not a.star]
            tensors = [a for a in positional if _may_be_tensor(source, a.value)]
            if len(positional) < 2 or len(tensors) < 2:
                continue
            short = name.rpartition(".")[2]
            message = f"the constructor of {short} is given the prediction and the target: call the module it makes"
            yield self.found(source, call, message, _edits(source, call, positional))


def _may_be_tensor(program: Program, value: cst.BaseExpression) -> bool:
    """Not a literal, and not named like one of the constructor's own arguments."""
    if isinstance(value, (cst.Name, cst.Attribute)):
        return not _OWN.search(value.value if isinstance(value, cst.Name) else value.attr.value)
    return isinstance(value, (cst.Call, cst.Subscript, cst.BinaryOperation)) and not _OWN.search(program.text_of(value))


def _edits(program: Program, call: cst.Call, positional: list[cst.Arg]) -> Edits:
    if len(positional) != 2 or any(a.star for a in call.args):
        return Cannot("which of the arguments are the constructor's is not clear")
    if any(a is not b for a, b in zip(call.args, positional, strict=False)):
        return Cannot("its keywords stand before the tensors")
    end = program.span(call.func)[1]
    keywords = call.args[2:]
    if not keywords:
        return (Edit(end, end, "()"),)
    first, last = program.span(keywords[0])[0], program.span(keywords[-1])[1]
    tensor_end = program.span(positional[1])[1]
    if commented(program, tensor_end, last):
        return COMMENTED
    options = program.data[first:last].decode().rstrip().rstrip(",")
    return (Edit(end, end, f"({options})"), Edit(tensor_end, last, ""))
