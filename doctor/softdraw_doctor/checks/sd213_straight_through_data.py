from __future__ import annotations

import ast
from collections.abc import Iterator

import libcst as cst

from softdraw_doctor.finding import Check, Edit, Finding
from softdraw_doctor.glance import Glance
from softdraw_doctor.operations import Program


class StraightThroughData(Check):
    """A straight-through sum takes the value out of the graph by .data.

    .data hides the tensor from autograd's count of versions: if the tensor is changed in place before backward,
    detach() leads to an error and .data to a wrong gradient in silence. torch.func and forward-mode derivatives know
    detach() and not .data.

    Off by default: --select SD213 turns it on.

    Wrong:  soft + (hard - soft).data
    Right:  soft + (hard - soft).detach(), or softdraw.straight_through(hard, soft)
    """

    code = "SD213"
    needs = (("data",),)
    default = False

    def possible(self, glance: Glance) -> bool:
        """A sum or a difference with ``.data`` on one side."""
        sums = (n for n in glance.nodes if isinstance(n, ast.BinOp) and isinstance(n.op, (ast.Add, ast.Sub)))
        return any(isinstance(s, ast.Attribute) and s.attr == "data" for n in sums for s in (n.left, n.right))

    def run(self, source: Program) -> Iterator[Finding]:
        for node in source.nodes(cst.BinaryOperation):
            if not isinstance(node.operator, cst.Add):
                continue
            for taken, soft in ((node.left, node.right), (node.right, node.left)):
                if _is_data(taken) and _difference_of(taken.value, soft):  # pyright: ignore[reportAttributeAccessIssue]
                    start, end = source.span(taken.attr)  # pyright: ignore[reportAttributeAccessIssue]
                    message = "a straight-through sum by .data: autograd does not see a change in place"
                    yield self.found(source, node, message, (Edit(start, end, "detach()"),))


def _is_data(value: cst.BaseExpression) -> bool:
    return isinstance(value, cst.Attribute) and value.attr.value == "data"


def _difference_of(value: cst.BaseExpression, soft: cst.BaseExpression) -> bool:
    """hard - soft."""
    if not (isinstance(value, cst.BinaryOperation) and isinstance(value.operator, cst.Subtract)):
        return False
    return value.right.deep_equals(soft)
