from __future__ import annotations

import re
from collections.abc import Iterator

import libcst as cst

from softdraw_doctor.finding import Cannot, Check, Edit, Edits, Finding
from softdraw_doctor.operations import Operation, Program
from softdraw_doctor.vocabulary import spellings

_TARGET = re.compile(r"teacher|target|label|true|gold|prior", re.IGNORECASE)
_LOG = re.compile(r"log")


class KLDivArguments(Check):
    """kl_div is given probabilities, its arguments in the wrong order, or the reduction "mean".

    F.kl_div(input, target) is KL(target || exp(input)): the input holds log-probabilities, and the approximation
    stands first. Nothing fails otherwise. Given the probabilities (0.7, 0.2, 0.1) for themselves it is -1.34 in place
    of 0. The reduction "mean" divides by the number of classes too: over 1,000 classes the loss and its gradient are
    1,000 times too small.

    Wrong:  F.kl_div(x.softmax(-1), p);             F.kl_div(teacher, student.log_softmax(-1))
    Right:  F.kl_div(x.log_softmax(-1), p, reduction="batchmean"), or softdraw.losses.categorical_kl

    The change of the reduction needs --unsafe-fixes: the learning rate was found with the old scale. Off by default:
    --select SD110 turns it on.
    """

    code = "SD110"
    needs = (spellings("kl_div"),)
    default = False

    def run(self, source: Program) -> Iterator[Finding]:
        for loss in source.of("kl_div"):
            message = _order(source, loss)
            if message:
                yield self.found(source, loss.call, message, Cannot("which law was meant first is not in the code"))
            reduction = _reduction(source, loss)
            if reduction is not None:
                said = 'the reduction "mean" divides by the classes too: "batchmean" is the divergence'
                yield self.found(source, loss.call, said, reduction, unsafe=True)


def _kind(program: Program, loss: Operation, name: str) -> str:
    argument = loss.arguments.get(name)
    origin = program.origin(argument.value) if argument is not None else None
    return origin.operation.kind if origin is not None else ""


def _order(program: Program, loss: Operation) -> str:
    first, second = _kind(program, loss, "input"), _kind(program, loss, "target")
    target = loss.arguments.get("target")
    if first in ("softmax", "sigmoid"):
        if second == "log_softmax":
            return "kl_div takes log-probabilities first and probabilities second: these stand the other way"
        return f"a {first} into kl_div, which takes log-probabilities: the value is no divergence"
    known = first == "log_softmax" or "log_target" in loss.arguments
    if loss.input is None or target is None or known:
        return ""
    early, late = _word(loss.input), _word(target.value)
    if _TARGET.search(early) and not _LOG.search(early) and (second == "log_softmax" or _LOG.search(late)):
        return f"{early} stands first in kl_div: the approximation stands first, as log-probabilities"
    return ""


def _word(value: cst.BaseExpression) -> str:
    name = value.attr if isinstance(value, cst.Attribute) else value
    return name.value if isinstance(name, cst.Name) else ""


def _reduction(program: Program, loss: Operation) -> Edits | None:
    """The edit of a literal "mean"; None where the reduction is another or is not said."""
    call = loss.constructor or loss.call
    for arg in call.args:
        value = arg.value
        if arg.keyword is not None and arg.keyword.value == "reduction" and isinstance(value, cst.SimpleString):
            return (Edit(*program.span(value), '"batchmean"'),) if value.evaluated_value == "mean" else None
    return None
