"""What the checks of likelihoods share: how to hand a loss the logits, and who else would notice."""

from __future__ import annotations

import libcst as cst
from libcst.metadata import Assignment, ClassScope, GlobalScope

from softdraw_doctor.finding import Cannot, Edits
from softdraw_doctor.imports import renamed
from softdraw_doctor.operations import Operation, Origin, Program
from softdraw_doctor.rewrite import exposing, joined, replaced, stripped


def logits_instead(program: Program, argument: cst.BaseExpression, origin: Origin) -> Edits:
    """The loss's ``argument`` becomes what the operation at its origin was given."""
    if origin.forked:
        return Cannot("it is made in several places: give the loss the logits by hand")
    if all(read_once(program, name) for name in origin.names):
        return exposing(stripped(program, origin.operation), exposed(program, *origin.names))
    logits = origin.operation.input
    if isinstance(logits, cst.Name) and isinstance(argument, cst.Name) and not (origin.shapes or origin.casts):
        if stable(program, logits, argument):
            return replaced(program, argument, logits.value)
        return Cannot(f"{logits.value} may have another value where the loss is")
    if origin.operation.form == "tail":
        return stripped(program, origin.operation)
    return Cannot(
        f"{program.text_of(origin.names[0])} is used elsewhere too: give the logits a name, and that to the loss"
    )


def read_once(program: Program, name: cst.BaseExpression) -> bool:
    """Whether this is the only read of a variable that is assigned once, alone, so that nothing else has its value."""
    return (
        isinstance(name, cst.Name)
        and len(program.reads(name)) == 1
        and len(program.assignments(name)) == 1
        and not shared(program, name)
    )


def shared(program: Program, name: cst.CSTNode) -> bool:
    """Whether the assignment gives its value to other targets too: ``p = self.p = value``."""
    targets = [a.node for a in program.assignments(name)] if isinstance(name, cst.Name) else [name]
    statements = [program.enclosing(target, cst.Assign) for target in targets]
    return any(statement is not None and len(statement.targets) > 1 for statement in statements)


def exposed(program: Program, *holders: cst.BaseExpression) -> str:
    """The first of these variables and attributes of ``self`` that other files can use, or "".

    They can use a public name of the module, a name of a class body, and an attribute, which subclasses read even
    behind one underscore. They cannot use what only exists when the file is run as a script.
    """
    for holder in holders:
        if isinstance(holder, cst.Attribute) and not holder.attr.value.startswith("__"):
            return program.text_of(holder)
        if isinstance(holder, cst.Name) and any(_public(program, a) for a in program.assignments(holder)):
            return holder.value
    return ""


def _public(program: Program, assignment: Assignment) -> bool:
    if isinstance(assignment.scope, ClassScope):
        return not assignment.name.startswith("__")
    tests = [a.test for a in program.ancestors(assignment.node) if isinstance(a, cst.If)]
    script = any("__name__" in program.text_of(test) for test in tests)
    return isinstance(assignment.scope, GlobalScope) and not assignment.name.startswith("_") and not script


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
    if not loss.direct:
        return Cannot("it is one of several, or in a container: use F.binary_cross_entropy_with_logits by hand")
    if loss.constructor is None:
        return Cannot("the criterion is not made in this file")
    calls = [op for op in program.of("bce") if op.constructor is loss.constructor]
    holders = list(loss.holders)
    if not _only_called(program, holders, len(calls)):
        return Cannot("the criterion is used in other ways too: replace it by nn.BCEWithLogitsLoss() by hand")
    made = renamed(program, loss.constructor.func, "torch.nn.BCEWithLogitsLoss")
    edits: list[Edits] = [exposing(made, exposed(program, *holders))]
    for op in calls:
        origin = program.origin(op.input)
        if op.input is None or origin is None or origin.operation.kind != "sigmoid":
            return Cannot("the criterion is given other probabilities too: give it logits everywhere")
        edits.append(logits_instead(program, op.input, origin))
    return joined(*edits)


def _only_called(program: Program, holders: list[cst.BaseExpression], calls: int) -> bool:
    """Whether the module in ``holders`` (the one that is called, what that was given, ...) has no use but the calls."""
    reads = [_reads(program, holder) for holder in holders]
    alone = not any(shared(program, target) for holder in holders for target in _targets(program, holder))
    return alone and (not reads or (reads[0] == calls and all(count == 1 for count in reads[1:])))


def _targets(program: Program, holder: cst.BaseExpression) -> list[cst.CSTNode]:
    """Where the variable, or an attribute of that name, is assigned."""
    if isinstance(holder, cst.Name):
        return [a.node for a in program.assignments(holder)]
    return [n for n in _same_attribute(program, holder) if isinstance(program.parents[n], cst.AssignTarget)]


def _reads(program: Program, holder: cst.BaseExpression) -> int:
    if isinstance(holder, cst.Name):
        return len(program.reads(holder))
    return sum(
        not isinstance(program.parents[n], (cst.AssignTarget, cst.AnnAssign))
        and program.enclosing(n, cst.Import, cst.ImportFrom) is None
        for n in _same_attribute(program, holder)
    )


def _same_attribute(program: Program, holder: cst.BaseExpression) -> list[cst.Attribute]:
    """Every attribute of that name in the file, on whatever object it is read."""
    name = holder.attr.value if isinstance(holder, cst.Attribute) else None
    return [n for n in program.nodes(cst.Attribute) if n.attr.value == name]
