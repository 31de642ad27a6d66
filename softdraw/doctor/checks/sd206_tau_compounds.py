from __future__ import annotations

import re
from collections.abc import Iterator

import libcst as cst

from softdraw.doctor.finding import Check, Finding
from softdraw.doctor.operations import Program

_TAU = re.compile(r"^(gumbel_)?(tau|temp|temperature)$", re.IGNORECASE)


class TauCompounds(Check):
    """A temperature annealed in place: tau *= rate.

    The schedule then lives in how often a line has run. Resuming, skipping or repeating a step moves it, a checkpoint
    does not hold it, and a rate meant for the start value is applied to the last one: DALLE-pytorch, as written, comes
    to tau = 0.5 at step 11,801 where its formula means 693,147. Without a floor tau ends at 0, where draws are NaN.

    Wrong:  tau *= math.exp(-rate * step)
    Right:  tau = softdraw.schedules.exponential(...)(step), or softdraw.schedules.TauScheduler, which has a state_dict

    It is not rewritten: which schedule was meant is not in the code.
    """

    code = "SD206"
    needs = (r"(?i)(tau|temp|temperature)\s*\*=", "(?i)gumbel|relaxed")

    def run(self, source: Program) -> Iterator[Finding]:
        for node in source.nodes(cst.AugAssign):
            target = node.target.attr if isinstance(node.target, cst.Attribute) else node.target
            multiplied = isinstance(node.operator, cst.MultiplyAssign)
            if multiplied and isinstance(target, cst.Name) and _TAU.match(target.value):
                message = f"{target.value} is annealed in place: the schedule compounds, and no checkpoint holds it"
                yield self.found(source, node, message, likely=True)
