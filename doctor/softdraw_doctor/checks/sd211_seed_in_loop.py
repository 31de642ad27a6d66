from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from softdraw_doctor.finding import Cannot, Check, Finding
from softdraw_doctor.operations import Program

_SEEDS = ("torch.manual_seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all", "torch.random.manual_seed")
_LOOPS = (cst.For, cst.While)


class SeedInLoop(Check):
    """A seed is set in every step of a training loop.

    Every step then has the same noise: the same dropout mask, the same Gumbel noise at the same place of the batch. The
    average over steps, on which stochastic gradients rest, is gone. A seed that depends on the step is no such mistake,
    nor is one that an `if` sets in some steps, as for images of a validation, nor one in a loop that makes a model or
    an optimizer: that is a loop over experiments.

    Off by default: --select SD211 turns it on.

    Wrong:  for x in loader: torch.manual_seed(0); loss = step(x); loss.backward()
    Right:  torch.manual_seed(0) before the loop, or softdraw's seed=softdraw.fold_in(seed, step)
    """

    code = "SD211"
    needs = (("manual_seed", "manual_seed_all"), ("backward",))
    default = False

    def run(self, source: Program) -> Iterator[Finding]:
        steps = {id(source.enclosing(c, *_LOOPS, cst.FunctionDef)) for c in source.nodes(cst.Call) if _is_backward(c)}
        for call in source.nodes(cst.Call):
            loop = source.enclosing(call, *_LOOPS, cst.FunctionDef)
            if id(loop) not in steps or not isinstance(loop, _LOOPS) or not _sets_seed(source, call):
                continue
            if source.enclosing(call, *_LOOPS, cst.If, cst.IfExp) is not loop:  # not in every step: for a validation
                continue
            if _makes_models(source, loop):
                continue
            if call.args and all(_fixed(source, arg.value, loop) for arg in call.args):
                edits = Cannot("whether every step was meant to have the same noise is not in the code")
                yield self.found(
                    source, call, "the seed is set in every step of training: each has the same noise", edits
                )


def _makes_models(program: Program, loop: cst.CSTNode) -> bool:
    """Whether the loop wraps or moves a new model, or gives parameters to a class: a loop over experiments."""
    for call in program.nodes(cst.Call):
        name = (program.name(call.func) or "").rpartition(".")[2]
        made = name[:1].isupper() and any("parameters" in program.text_of(arg) for arg in call.args)
        if (made or name.endswith("DataParallel")) and loop in program.ancestors(call):
            return True
    return False


def _is_backward(call: cst.Call) -> bool:
    return isinstance(call.func, cst.Attribute) and call.func.attr.value == "backward"


def _sets_seed(program: Program, call: cst.Call) -> bool:
    if program.name(call.func) in _SEEDS:
        return True
    if not (isinstance(call.func, cst.Attribute) and call.func.attr.value == "manual_seed"):
        return False
    made = program.value(call.func.value)
    return isinstance(made, cst.Call) and program.name(made.func) == "torch.Generator"


def _fixed(program: Program, value: cst.BaseExpression, loop: cst.CSTNode) -> bool:
    """Whether the seed is a number, or one name or attribute that nothing in the loop binds."""
    if isinstance(value, cst.Integer):
        return True
    name = value
    while isinstance(name, cst.Attribute):
        name = name.value
    if not isinstance(name, cst.Name):
        return False
    targets = [a.node for a in program.assignments(name)]
    return bool(targets) and not any(loop in program.ancestors(target) for target in targets)
