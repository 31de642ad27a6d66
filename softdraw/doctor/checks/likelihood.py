"""What the checks of likelihoods share: which operation made a loss's input, and how to hand it the logits instead."""

from __future__ import annotations

import libcst as cst

from softdraw.doctor.finding import Cannot, Edits
from softdraw.doctor.operations import Operation, Origin, Program
from softdraw.doctor.rewrite import joined, renamed, replaced, stripped


def logits_instead(program: Program, argument: cst.BaseExpression, origin: Origin) -> Edits:
    """The loss's ``argument`` becomes what the operation at its origin was given."""
    if not origin.names:
        return stripped(program, origin.operation)
    if all(len(program.reads(name)) == 1 and len(program.assignments(name)) == 1 for name in origin.names):
        return stripped(program, origin.operation)
    logits = origin.operation.input
    if isinstance(logits, cst.Name) and isinstance(argument, cst.Name) and not (origin.shapes or origin.casts):
        if stable(program, logits, argument):
            return replaced(program, argument, logits.value)
        return Cannot(f"{logits.value} may have another value where the loss is")
    if origin.operation.form == "tail":
        return stripped(program, origin.operation)
    return Cannot(f"{origin.names[0].value} is used elsewhere too: give the logits a name, and that to the loss")


def stable(program: Program, early: cst.Name, late: cst.Name) -> bool:
    """``early`` is bound once, and nothing in the file writes into it."""
    bound = program.assignments(early)
    same_scope = program.scopes[early] is program.scopes[late]
    return len(bound) == 1 and same_scope and not written_into(program, early)


def written_into(program: Program, name: cst.Name) -> bool:
    """Whether the tensor in the variable is changed in place: ``x += 1``, ``x.add_(1)``, ``x[0] = 1``."""
    if any(isinstance(program.parents[a.node], cst.AugAssign) for a in program.assignments(name)):
        return True
    for read in program.reads(name):
        parent = program.parents[read]
        if isinstance(parent, cst.Attribute) and parent.attr.value.endswith("_"):
            return True
        if isinstance(parent, cst.Subscript) and isinstance(program.parents[parent], (cst.AssignTarget, cst.AugAssign)):
            return True
    return False


def with_logits(program: Program, loss: Operation) -> Edits:
    """The loss becomes BCE-with-logits, and each call of one criterion takes logits."""
    if loss.form == "function":
        return renamed(program, loss.call.func, "torch.nn.functional.binary_cross_entropy_with_logits")
    if loss.constructor is None:
        return Cannot("the criterion is not made in this file")
    calls = [op for op in program.of("bce") if op.constructor is loss.constructor]
    if uses(program, loss) != len(calls):
        return Cannot("the criterion is used in other ways too: replace it by nn.BCEWithLogitsLoss() by hand")
    edits: list[Edits] = [renamed(program, loss.constructor.func, "torch.nn.BCEWithLogitsLoss")]
    for op in calls:
        origin = program.origin(op.input)
        if op.input is None or origin is None or origin.operation.kind != "sigmoid":
            return Cannot("the criterion is given other probabilities too: give it logits everywhere")
        edits.append(logits_instead(program, op.input, origin))
    return joined(*edits)


def uses(program: Program, loss: Operation) -> int:
    """How often the module that ``loss`` calls is read in the file."""
    func = loss.call.func
    if isinstance(func, cst.Name):
        return len(program.reads(func))
    if isinstance(func, cst.Attribute):
        same = [n for n in program.nodes(cst.Attribute) if n.attr.value == func.attr.value]
        return sum(
            not isinstance(program.parents[n], (cst.AssignTarget, cst.AnnAssign))
            and program.enclosing(n, cst.Import, cst.ImportFrom) is None
            for n in same
        )
    return 1
