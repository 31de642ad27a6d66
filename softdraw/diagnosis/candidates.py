"""The rules that ``diagnose`` compares where the user names none."""

from __future__ import annotations

from typing import Any

from softdraw.diagnosis.gradients import Problem
from softdraw.rules import (
    ZGR,
    DisARM,
    GappedStraightThrough,
    GumbelRao,
    LeaveOneOut,
    ReinMax,
    StraightThrough,
    StraightThroughGumbel,
    SumAndSample,
)
from softdraw.rules.pathwise import Pathwise
from softdraw.rules.score_function import states_within

RULES = (
    StraightThrough(),
    StraightThroughGumbel(0.5),
    GumbelRao(0.5, 20),
    GappedStraightThrough(),
    ZGR(),
    ReinMax(1.3),
    LeaveOneOut(4),
)
BLACK_BOX = (LeaveOneOut(4), LeaveOneOut(16), DisARM(2), SumAndSample(8))
_TABLE = 256  # joint states up to which SumAndSample compares them all, for every estimate


def candidates(problem: Problem, seed: int) -> tuple[list[Any], tuple[str, ...]]:
    """The rules for a problem, and what the report says of those left out."""
    differentiable = problem.is_differentiable(seed)
    rules = [rule for rule in (*RULES, DisARM(2)) if differentiable or not isinstance(rule, Pathwise)]
    if not differentiable:
        rules = [
            r for r in BLACK_BOX if not isinstance(r, SumAndSample) or states_within(problem.law, problem.joint, _TABLE)
        ]
    served = [rule for rule in rules if rule.needs in problem.law.offers]
    left_out = [type(rule).__name__ for rule in RULES if rule not in served and differentiable]
    notes = []
    if problem.law.rule.needs not in problem.law.offers:
        notes.append(f"Score-function rules alone, because no pathwise rule serves {type(problem.law).__name__}.")
    elif not differentiable:
        notes.append("f gives no gradient at its sample (a black box), so pathwise rules are left out.")
    if left_out:
        notes.append(f"Left out, because they do not serve {type(problem.law).__name__}: {', '.join(left_out)}.")
    return served, tuple(notes)
