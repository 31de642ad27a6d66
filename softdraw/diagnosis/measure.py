"""``diagnose``: bias and variance of gradient rules on the user's own objective."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributions

from softdraw.checks import integer
from softdraw.diagnosis.candidates import candidates
from softdraw.diagnosis.cost import costs
from softdraw.diagnosis.failure import users_part
from softdraw.diagnosis.gradients import Moments, Problem, Sums, variance
from softdraw.diagnosis.report import Interval, Measured, Report
from softdraw.rules import LeaveOneOut
from softdraw.rules.pathwise import Pathwise
from softdraw.rules.score_function import ScoreFunction
from softdraw.verbs import as_law

_REFERENCE = LeaveOneOut(16)
_ROUNDING = 1e-12  # of a squared relative bias in float32


def diagnose(
    f: Callable[[Tensor], Any],
    law: distributions.Distribution,
    rules: Sequence[Pathwise | ScoreFunction] | None = None,
    samples: int = 2000,
    *,
    seed: int = 0,
    rows: int | Tensor = 0,
    time_budget: float = 60.0,
    exact_limit: int = 100_000,
    progress: bool = False,
) -> Report:
    r"""Measure the bias and the variance of gradient rules on your own objective and logits.

    .. math:: \mathrm{bias} = \frac{\|E \hat g - \nabla\|}{\|\nabla\|}, \qquad
              \mathrm{variance} = \frac{E \|\hat g - E \hat g\|^2}{\|\nabla\|^2}, \qquad
              \mathrm{cosine} = E \cos(\hat g, \nabla)

    for one gradient estimate of E[f], summed over the batch, by the logits. The true gradient is enumerated
    where f sees at most ``exact_limit`` joint states, else estimated by leave-one-out with its own error.

    Args:
        f: as for :func:`softdraw.expect`; may be a whole model. Pathwise rules differentiate it.
        law: as for :func:`softdraw.draw`; ``Independent`` for several variables under one value of f.
        rules: the rules to compare. Default: seven common pathwise and score-function rules; where f gives no gradient
            at its sample, score-function rules only, and the report says so.
        samples: gradient estimates a rule, at least 50.
        seed: makes the report's statistics reproducible; every rule sees the same draws.
        rows: as for :func:`softdraw.expect`, below 2^32: with its ids, a part of a batch has the draws that it has in
            the whole. Every estimate has draws of its own.
        time_budget: seconds; the last rules get fewer samples when it runs out, and the report says how many.
        exact_limit: joint states up to which the truth is enumerated.
        progress: show a progress bar (needs rich).

    Returns:
        A :class:`softdraw.diagnosis.Report`: ``print`` it for the table and the advice, ``plot`` it, ``to_dict`` it.
        Rules are compared at equal cost: by the error of the mean of as many estimates as 100 evaluations of f allow,
        bias^2 + variance * (evaluations an estimate) / 100.

    Gradient:
        None. Neither the logits nor the parameters of f are changed.

    Raises:
        TypeError, ValueError: a rule does not serve the law; f returns another shape, is NaN or infinite, or has no
            gradient for a pathwise rule that was given; the true gradient is zero; samples below 50. An error that f
            itself raises passes through, with the user's part of its traceback.

    Example:
        >>> law = softdraw.OneHotCategorical(torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64))
        >>> w = torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64)
        >>> report = softdraw.diagnose(lambda y: (y @ w) ** 2, law, [softdraw.StraightThrough(), softdraw.ZGR()])
        >>> [(r.name, round(r.bias.value, 1)) for r in report.rules]
        [('StraightThrough(tau=1)', 5.8), ('ZGR()', 0.0)]

    Source:
        Hooper and Shekhovtsov (2026), AISTATS, for bias and variance relative to the true gradient.
    """
    _check(rules, samples, time_budget)
    if not -(2**63) <= integer("seed", seed, "of the whole report") < 2**64:
        raise ValueError(f"seed must be an int of 64 bits, got {seed}: take it modulo 2**64")
    try:
        return _diagnose(Problem(f, *as_law(law), rows), rules, samples, seed, time_budget, exact_limit, progress)
    except Exception as error:
        error.__traceback__ = users_part(error.__traceback__) or error.__traceback__
        raise error


def _diagnose(
    problem: Problem,
    rules: Sequence[Any] | None,
    samples: int,
    seed: int,
    time_budget: float,
    exact_limit: int,
    progress: bool,
) -> Report:
    started = time.monotonic()
    master = torch.Generator().manual_seed(seed)  # every rule sees the same draws, the reference others
    rule_seed, truth_seed = (int(torch.randint(2**62, (), generator=master, device="cpu")) for _ in range(2))
    rules, notes = candidates(problem, truth_seed) if rules is None else (rules, ())
    for rule in rules:
        rule.check_serves(problem.law)
    with _bar(progress) as advance:
        truth = _truth(problem, exact_limit, 10 * samples, truth_seed, started + time_budget / 2, advance)
        prices = costs(problem, rules, time.monotonic() + time_budget / 10)
        measured = []
        for i, rule in enumerate(rules):
            deadline = time.monotonic() + (started + time_budget - time.monotonic()) / (len(rules) - i)
            moments = Moments()
            _collect(problem, rule, moments, samples, rule_seed, deadline, truth)
            measured.append(_summarise(rule, problem.evaluations, moments, truth, prices[i]))
            advance((i + 2) / (len(rules) + 1))
    return Report(truth.source, truth.norm, tuple(measured), notes)


def _check(rules: Sequence[Any] | None, samples: int, time_budget: float) -> None:
    if isinstance(samples, bool) or not isinstance(samples, int):
        raise TypeError(f"samples must be an int, got {type(samples).__name__}")
    if samples < 50:
        raise ValueError(f"diagnose needs samples >= 50 for its error bars, got {samples}")
    if not time_budget > 0:
        raise ValueError(f"time_budget must be above 0 seconds, got {time_budget}")
    if isinstance(rules, (Pathwise, ScoreFunction)):
        raise TypeError(
            f"rules must be a list of rules, got {type(rules).__name__}: write [{type(rules).__name__}(...)]"
        )
    if rules is not None and not rules:
        raise ValueError("rules must name at least one rule, got none: leave the argument out for the common ones")
    for rule in rules or ():
        if not isinstance(rule, (Pathwise, ScoreFunction)):
            what = f"the class {rule.__name__}" if isinstance(rule, type) else type(rule).__name__
            raise TypeError(f"rules must be gradient rules such as softdraw.ReinMax(), got {what}")


@dataclass(frozen=True)
class _Truth:
    """The gradient; the moments behind it, where it is an estimate; its length, its noise taken off; its source."""

    gradient: Tensor
    moments: Moments | None
    norm: float
    source: str


def _truth(problem: Problem, limit: int, samples: int, seed: int, deadline: float, advance: Callable) -> _Truth:
    if problem.states() <= limit:
        gradient, moments, error = problem.exact(limit), None, 0.0
        source = f"exact, {problem.states():,} joint states enumerated"
    else:
        moments = Moments()
        _collect(problem, _REFERENCE, moments, samples, seed, deadline)
        n, total, squares, _ = moments.sums()
        gradient, error = total / n, variance(n, total, squares) / n
        relative = math.sqrt(error / max(gradient.square().sum().item(), 1e-300))
        source = f"leave-one-out, {n * _REFERENCE.samples:,} samples, relative error {relative:.2g}"
    advance(1 / 8)
    norm = math.sqrt(max(gradient.square().sum().item() - error, 0.0))
    if norm <= max(problem.rounding(), 1e-12 * gradient.abs().max().item()):
        raise ValueError("the true gradient of E[f] is zero within its error: nothing can be relative to it")
    return _Truth(gradient, moments, norm, source)


def _collect(
    problem: Problem, rule: Any, moments: Moments, samples: int, seed: int, deadline: float, truth: _Truth | None = None
) -> None:
    """Fill the moments, group by group, until there are enough samples or no time for one more; two at least."""
    generator = torch.Generator(problem.law.theta.device).manual_seed(seed)
    copies, longest = problem.copies(samples), 0.0
    while moments.count < samples and (len(moments.groups) < 2 or time.monotonic() + longest < deadline):
        began = time.monotonic()
        moments.add(problem.gradients(rule, copies, generator), None if truth is None else truth.gradient)
        longest = max(longest, time.monotonic() - began)


def _summarise(rule: Any, evaluations: int, moments: Moments, truth: _Truth, price: dict[str, float]) -> Measured:
    def squared_bias(draws: Sums, reference: Sums | None = None) -> float:
        """|E g - truth|^2, unbiased: the noise of the mean and of the truth is taken off; may come out negative."""
        n, total, squares, _ = draws
        gradient, error = truth.gradient, 0.0
        if reference is not None:
            gradient, error = reference[1] / reference[0], variance(*reference[:3]) / reference[0]
        return ((total / n - gradient).square().sum().item() - variance(n, total, squares) / n - error) / truth.norm**2

    reference = truth.moments.sums() if truth.moments else None
    value, deviation = moments.jackknife(lambda sums: squared_bias(sums, reference))
    if truth.moments:
        own = moments.sums()
        deviation = math.hypot(deviation, truth.moments.jackknife(lambda sums: squared_bias(own, sums))[1])
    deviation = max(deviation, _ROUNDING)
    # The estimate is unbiased and so may be negative; the interval of what it estimates may not end there.
    low, middle, high = value - 1.96 * deviation, max(value, 0.0), max(value, 0.0) + 1.96 * deviation
    return Measured(
        rule=rule,
        draws=moments.count,
        evaluations=evaluations,
        bias=Interval(math.sqrt(middle), math.copysign(math.sqrt(abs(low)), low), math.sqrt(high)),
        variance=Interval.of(*moments.jackknife(lambda sums: variance(*sums[:3]) / truth.norm**2)),
        cosine=Interval.of(*moments.jackknife(lambda sums: sums[3] / sums[0])),
        **price,
    )


def _bar(progress: bool) -> Any:
    """A context that gives a function of the share done: a progress bar on standard error, or nothing."""
    if not progress:
        return nullcontext(lambda share: None)
    try:
        from softdraw.diagnosis.progress import bar
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError("progress=True needs rich: pip install 'softdraw[cli]'") from missing
    return bar()
