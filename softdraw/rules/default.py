"""The rule that ``expect`` takes where the user gives none: from the law, and from whether f is differentiable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from softdraw.rules.disarm import DisARM
from softdraw.rules.exact import Exact
from softdraw.rules.leave_one_out import LeaveOneOut
from softdraw.rules.needs import Need
from softdraw.rules.score_function import Objective, ScoreFunction, states_within
from softdraw.tensors import is_plain

ENUMERATED = 16  # joint states: about what a score-function rule would evaluate to be half as good
BLACK_BOX = 4  # evaluations of f


def estimate(objective: Objective, samples: int | None) -> Tensor:
    """E[f] with a gradient, by the rule that suits the law and f.

    Enumeration, where there are few states and the law was given no rule; the law's pathwise rule, where f is
    differentiable at its sample; else a score-function rule. Where no gradient is wanted, the mean of plain draws.
    """
    law = objective.law
    few = states_within(law, objective.joint, samples or ENUMERATED)
    if few and not law.has_rsample:  # has_rsample: the user gave the law a rule, which then is the user's choice
        return Exact().estimate(objective)
    if torch.compiler.is_compiling():
        raise TypeError(
            "expect must be given a rule under torch.compile, got rule=None: the default looks at the graph of f, "
            "which is not traced. Write expect(f, law, softdraw.ZGR()), or LeaveOneOut(4) where f is a black box"
        )
    if law.rule.needs not in law.offers:
        return black_box(law, samples).estimate(objective)
    y = law.rsample((samples or 1,), seed=objective.seed, rows=objective.rows)
    if not y.requires_grad:
        return objective.values(y).mean(0)
    value, differentiable = probe(objective.f, y)
    if differentiable:
        return objective.checked(value, y).mean(0)
    if value is not None and is_plain(y):
        objective = replace(objective, f=_remembering(objective, y.detach(), value))
    return black_box(law, samples).estimate(objective)


def probe(f: Callable[[Tensor], Any], y: Tensor) -> tuple[Any, bool]:
    """f at a sample that has a graph, and whether the graph of the value reaches the sample; None where f raises.

    An f that leaves torch may raise (``y.numpy()``). A mistake in f raises again where f is called without a graph.
    """
    node = y.grad_fn
    try:
        value = f(y)
    except Exception:
        return None, False
    return value, isinstance(value, Tensor) and _reaches(value.grad_fn, node)


def black_box(law: Any, samples: int | None) -> ScoreFunction:
    """The score-function rule that evaluates f ``samples`` times."""
    count = BLACK_BOX if samples is None else samples
    if count < 2:
        raise ValueError(
            f"samples must be at least 2 where f gives no gradient at its sample (a black box), got {count}: "
            "the values of samples are compared with each other. Raise it, or give a rule such as Reinforce(baseline)"
        )
    # A pair of DisARM beats two samples of leave-one-out; two pairs have 1.0 to 1.7 times the variance of four samples.
    return DisARM(pairs=1) if count == 2 and Need.BITS in law.offers else LeaveOneOut(samples=count)


def _reaches(start: Any, goal: Any) -> bool:
    """Whether a graph, from the node ``start`` back, has the node ``goal``."""
    seen, waiting = set(), [start]
    while waiting:
        node = waiting.pop()
        if node is goal:
            return True
        if node is not None and node not in seen:
            seen.add(node)
            waiting.extend(before for before, _ in node.next_functions)
    return False


def _remembering(objective: Objective, drawn: Tensor, value: Any) -> Callable[[Tensor], Any]:
    """f, whose values at the samples ``drawn`` are known and not evaluated again where those samples come first."""
    known = objective.checked(value, drawn)

    def f(y: Tensor) -> Any:
        n = min(len(y), len(drawn))
        if not torch.equal(y[:n], drawn[:n]):  # the law's rule may have relaxed its sample
            return objective.f(y)
        return known[:n] if n == len(y) else torch.cat((known[:n], objective.values(y[n:])))

    return f
