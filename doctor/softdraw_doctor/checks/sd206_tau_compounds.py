from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import libcst as cst

from softdraw_doctor.finding import Check, Finding
from softdraw_doctor.glance import Glance
from softdraw_doctor.operations import Program

_TAU = re.compile(r"^(gumbel_)?(tau|temp|temperature)$", re.IGNORECASE)
_RELAXATION = re.compile(r"gumbel|relaxed", re.IGNORECASE)  # elsewhere a temperature is one of the weather


class TauCompounds(Check):
    """A temperature annealed in place: tau *= rate.

    The schedule then lives in how often a line has run. Resuming, skipping or repeating a step moves it, a checkpoint
    does not hold it, and a rate meant for the start value is applied to the last one: DALLE-pytorch, as written,
    reaches tau = 0.5 at step 11,801 where its formula means 693,147. Without a floor tau ends at 0: draws are NaN.

    Wrong:  tau *= math.exp(-rate * step)
    Right:  tau = softdraw.schedules.exponential(...)(step), or softdraw.schedules.TauScheduler, which has a state_dict

    It is not rewritten: which schedule was meant is not in the code.
    """

    code = "SD206"
    needs = (("tau", "temp"), ("gumbel", "relaxed"))

    def possible(self, glance: Glance) -> bool:
        """Such an assignment; the words of ``needs`` may stand in comments, so the identifiers are not asked."""
        targets = (n.target for n in glance.nodes if isinstance(n, ast.AugAssign) and isinstance(n.op, ast.Mult))
        names = (t.attr if isinstance(t, ast.Attribute) else getattr(t, "id", "") for t in targets)
        return any(_TAU.match(name) for name in names)

    def run(self, source: Program) -> Iterator[Finding]:
        if not _RELAXATION.search(source.text):
            return
        for node in source.nodes(cst.AugAssign):
            target = node.target.attr if isinstance(node.target, cst.Attribute) else node.target
            multiplied = isinstance(node.operator, cst.MultiplyAssign)
            if multiplied and isinstance(target, cst.Name) and _TAU.match(target.value) and not _grows(node.value):
                message = f"{target.value} is annealed in place: the schedule compounds, and no checkpoint holds it"
                yield self.found(source, node, message, likely=True)


def _grows(factor: cst.BaseExpression) -> bool:
    """A number above 1: no annealing, but for instance the 1.8 between Celsius and Fahrenheit."""
    return isinstance(factor, (cst.Integer, cst.Float)) and factor.evaluated_value > 1
