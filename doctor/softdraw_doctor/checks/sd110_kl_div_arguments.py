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
    of 0. The reduction "mean", which is also the default, divides by the number of classes too: over 1,000 classes the
    loss and its gradient are 1,000 times too small. "batchmean" divides by the first size alone: right for inputs
    (N, C), and T times too large for inputs (N, T, C). Summing over the classes and then averaging is right for all.

    Wrong:  F.kl_div(x.softmax(-1), p);             F.kl_div(teacher, student.log_softmax(-1))
    Wrong:  F.kl_div(x.log_softmax(-1), p, reduction="mean")
    Right:  F.kl_div(x.log_softmax(-1), p, reduction="none").sum(-1).mean(), or softdraw.losses.categorical_kl

    The change of the reduction needs --unsafe-fixes: the learning rate was found with the old scale.
    """

    code = "SD110"
    needs = (spellings("kl_div"),)

    def run(self, source: Program) -> Iterator[Finding]:
        for loss in source.of("kl_div"):
            message, known = _order(source, loss)
            if message:
                edits = Cannot("which law was meant first is not in the code")
                yield self.found(source, loss.call, message, edits, likely=not known)
            literal = _mean(source, loss)
            if literal is not None:
                said = 'the reduction "mean" divides by the number of classes too: the loss is too small by that factor'
                yield self.found(source, loss.call, said, _summed(source, loss, literal), unsafe=True)


def _kind(program: Program, loss: Operation, name: str) -> str:
    argument = loss.arguments.get(name)
    origin = program.origin(argument.value) if argument is not None else None
    return origin.operation.kind if origin is not None else ""


def _order(program: Program, loss: Operation) -> tuple[str, bool]:
    """What is wrong with the arguments, or "", and whether it is certain: a name alone is not."""
    first, second = _kind(program, loss, "input"), _kind(program, loss, "target")
    target = loss.arguments.get("target")
    if first in ("softmax", "sigmoid"):
        if second == "log_softmax":
            return "kl_div takes log-probabilities first and probabilities second: these stand the other way", True
        return f"a {first} into kl_div, which takes log-probabilities: the value is no divergence", True
    known = first == "log_softmax" or "log_target" in loss.arguments
    if loss.input is None or target is None or known:
        return "", True
    early, late = _word(loss.input), _word(target.value)
    if _TARGET.search(early) and not _LOG.search(early) and (second == "log_softmax" or _LOG.search(late)):
        return f"{early} stands first in kl_div: the approximation stands first, as log-probabilities", False
    return "", True


def _word(value: cst.BaseExpression) -> str:
    name = value.attr if isinstance(value, cst.Attribute) else value
    return name.value if isinstance(name, cst.Name) else ""


def _mean(program: Program, loss: Operation) -> cst.SimpleString | None:
    """The literal "mean" of the reduction; None where it is another or is not said."""
    for arg in (loss.constructor or loss.call).args:
        value = arg.value
        if arg.keyword is not None and arg.keyword.value == "reduction" and isinstance(value, cst.SimpleString):
            return value if value.evaluated_value == "mean" else None
    return None


def _summed(program: Program, loss: Operation, literal: cst.SimpleString) -> Edits:
    """``reduction="none"`` and, behind the call, the sum over the classes and the mean of the rest."""
    origin = program.origin(loss.input)
    known = origin is not None and not (origin.shapes or origin.forked) and origin.operation.kind == "log_softmax"
    dim = _dim(program, origin.operation) if origin is not None and known else ""
    if not dim or loss.call not in program.ancestors(literal):
        return Cannot(
            'write reduction="none" and .sum(dim).mean() behind the call, dim being that of the classes; "batchmean" '
            "is the same for inputs of shape (N, C) alone"
        )
    end = program.span(loss.call)[1]
    return (Edit(*program.span(literal), '"none"'), Edit(end, end, f".sum({dim}).mean()"))


def _dim(program: Program, softmax: Operation) -> str:
    """The literal dimension of a softmax, or ""."""
    args = (softmax.constructor or softmax.call).args
    place = 1 if softmax.form == "function" else 0
    named = [a.value for a in args if a.keyword is not None and a.keyword.value == "dim"]
    positional = [a.value for a in args if a.keyword is None and not a.star]
    value = named[0] if named else positional[place] if place < len(positional) else None
    text = program.text_of(value) if value is not None else ""
    return text if re.fullmatch(r"-?\d+", text) else ""
