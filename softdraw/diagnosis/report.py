"""What ``diagnose`` found: numbers, a ranking at equal cost, advice, and the forms that they are read in."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from softdraw.diagnosis import shown
from softdraw.rules.score_function import ScoreFunction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EVALUATIONS = 100  # of f, that training effectively averages over: momentum, batch, slow change of the logits
_MANY = 10**9


class Interval(NamedTuple):
    """An estimate and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, deviation: float) -> Interval:
        """The interval of a normal estimate."""
        return cls(value, value - 1.96 * deviation, value + 1.96 * deviation)

    @property
    def half(self) -> float:
        """Half the width."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Measured:
    """One rule's figures; bias and variance are relative to the length of the true gradient."""

    rule: Any
    draws: int
    evaluations: int
    bias: Interval
    variance: Interval
    cosine: Interval
    milliseconds: float
    bytes: float

    @property
    def name(self) -> str:
        """The rule with its numbers, ``ReinMax(tau=1.3)``."""
        values = ((x.name, getattr(self.rule, x.name)) for x in fields(self.rule))
        numbers = [f"{name}={v:g}" for name, v in values if isinstance(v, (int, float))]
        return f"{type(self.rule).__name__}({', '.join(numbers)})"

    @property
    def unbiased(self) -> bool:
        """Whether no bias shows above the noise."""
        return self.bias.low <= 0

    def error(self, evaluations: float) -> float:
        """Squared relative error of the mean of as many estimates as that many evaluations of f allow.

        bias^2 + variance * n / evaluations for a rule of n evaluations; infinite where not one estimate is allowed.
        """
        if self.evaluations > evaluations:
            return math.inf
        bias = 0.0 if isinstance(self.rule, ScoreFunction) else self.bias.value  # score-function rules have none
        return bias**2 + self.variance.value * self.evaluations / evaluations


@dataclass(frozen=True, repr=False)
class Report:
    """``truth`` says where the true gradient comes from, ``norm`` is its length, ``rules`` are as they were given.

    ``notes`` say which rules were left out, and why. In a notebook the report shows as a table.
    """

    truth: str
    norm: float
    rules: tuple[Measured, ...]
    notes: tuple[str, ...] = ()

    @property
    def evaluations(self) -> int:
        """The evaluations of f at which the rules are compared: 100, or those of the cheapest rule if it takes more."""
        return max(EVALUATIONS, min(r.evaluations for r in self.rules))

    def ranked(self, evaluations: float | None = None) -> list[Measured]:
        """The rules, least error first, at equal cost in evaluations of f; the quicker first where errors tie."""
        budget = self.evaluations if evaluations is None else evaluations
        return sorted(self.rules, key=lambda r: (float(f"{r.error(budget):.2g}"), r.milliseconds / r.evaluations))

    @property
    def advice(self) -> str:
        """One plain sentence: which rule at equal cost, and when another."""
        budget = self.evaluations
        best, *others = self.ranked()
        sentence = f"With {budget} evaluations of f, {best.name} has the least error, {self._error(best)}"
        if others and others[0].error(budget) < math.inf:
            sentence += f"; next is {others[0].name}, {self._error(others[0])}"
        few = self.ranked(min(r.evaluations for r in self.rules))[0]
        many = self.ranked(_MANY)[0]
        if few is not best and few.error(best.evaluations) < best.error(best.evaluations):
            sentence += f"; with fewer than about {shown.short(_crossing(few, best))}, prefer {few.name}"
        if many is not best and many.error(_MANY) < best.error(_MANY):
            sentence += f"; with more than about {shown.short(_crossing(best, many))}, prefer {many.name}"
        return sentence + "."

    def _error(self, r: Measured) -> str:
        error = 100 * math.sqrt(r.error(self.evaluations))
        bias = f"bias {shown.short(100 * r.bias.value)} %"
        if r.unbiased:
            bias = "no bias" if isinstance(r.rule, ScoreFunction) else f"bias below {shown.short(100 * r.bias.high)} %"
        return f"{shown.short(error)} % of the gradient ({bias})"

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain numbers, strings and lists, for JSON; an infinite error is None."""

        def row(r: Measured) -> dict[str, Any]:
            error = math.sqrt(r.error(self.evaluations))
            intervals = {name: getattr(r, name)._asdict() for name in ("bias", "variance", "cosine")}
            numbers = {name: getattr(r, name) for name in ("draws", "evaluations", "milliseconds", "bytes")}
            return {
                "name": r.name,
                **numbers,
                "bias_within_noise": r.unbiased,
                **intervals,
                "error": error if error < math.inf else None,
            }

        return {
            "truth": self.truth,
            "norm": self.norm,
            "evaluations": self.evaluations,
            "rules": [row(r) for r in self.rules],
            "ranking": [r.name for r in self.ranked()],
            "advice": self.advice,
            "notes": list(self.notes),
        }

    def plot(self, path: str | None = None) -> Figure:
        """The bias-variance picture as a matplotlib figure, also written to ``path`` where one is given."""
        try:
            from softdraw.diagnosis.picture import picture
        except ModuleNotFoundError as missing:
            raise ModuleNotFoundError("plot needs matplotlib: pip install 'softdraw[cli]'") from missing
        figure = picture(self)
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def __str__(self) -> str:
        return shown.text(self)

    def __repr__(self) -> str:
        return f"Report({len(self.rules)} rules, best at equal cost: {self.ranked()[0].name}; print it for the table)"

    def _repr_html_(self) -> str:
        return shown.html(self)


def _crossing(few: Measured, many: Measured) -> float:
    """The evaluations from which on ``many`` has less error than ``few``."""
    bias = few.error(_MANY) - many.error(_MANY)
    spread = many.variance.value * many.evaluations - few.variance.value * few.evaluations
    return max(many.evaluations, spread / bias if bias > 0 else 0.0)
