from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from softdraw_doctor.finding import Cannot, Check, Edit, Edits, Finding
from softdraw_doctor.operations import Program
from softdraw_doctor.vocabulary import spellings


class DimAsEps(Check):
    """The dimension is handed to F.gumbel_softmax as its fourth positional argument, which is eps.

    eps has been unused for years, so nothing fails, and dim stays -1: for an image of shape (N, K, H, W) the draw is
    over the columns, not over the categories.

    Wrong:  F.gumbel_softmax(x, tau, True, 1)
    Right:  F.gumbel_softmax(x, tau, True, dim=1), or softdraw.gumbel_softmax(x, tau, True, dim=1)

    The rewrite changes what is drawn (unless the dimension is the last), on purpose: it needs --unsafe-fixes.
    """

    code = "SD202"
    needs = (spellings("gumbel_softmax"),)

    def run(self, source: Program) -> Iterator[Finding]:
        for draw in source.of("gumbel_softmax"):
            arg = draw.arguments.get("eps")
            if arg is not None and _is_dim(arg.value):
                text = source.text_of(arg.value)
                message = f"{text} is given to gumbel_softmax as eps, which does nothing: write dim={text}"
                edits = _edits(source, arg, "dim" in draw.arguments, text)
                yield self.found(source, draw.call, message, edits, unsafe=text != "-1")


def _is_dim(value: cst.BaseExpression) -> bool:
    if isinstance(value, cst.UnaryOperation) and isinstance(value.operator, cst.Minus):
        value = value.expression
    if isinstance(value, cst.Integer):
        return value.value != "0"
    return isinstance(value, cst.Name) and value.value == "dim"


def _edits(program: Program, arg: cst.Arg, has_dim: bool, text: str) -> Edits:
    if has_dim:
        return Cannot("dim is given as well: remove the fourth argument")
    start, end = program.span(arg.value)
    keyword = "" if arg.keyword is None else arg.keyword.value
    if keyword:
        return (Edit(*program.span(arg.keyword), "dim"),)  # pyright: ignore[reportArgumentType]
    return (Edit(start, end, f"dim={text}"),)
