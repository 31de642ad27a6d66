"""What ``diagnose`` found: numbers, a table, a picture, a sentence of advice."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

_HORIZON = 100  # gradients that training effectively averages: momentum, batch, slow change of the logits


class Interval(NamedTuple):
    """An estimate and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, deviation: float) -> Interval:
        """The interval of a normal estimate."""
        return cls(value, value - 1.96 * deviation, value + 1.96 * deviation)


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
        shown = [f"{name}={v:g}" for name, v in values if isinstance(v, (int, float))]
        return f"{type(self.rule).__name__}({', '.join(shown)})"

    @property
    def unbiased(self) -> bool:
        """Whether no bias shows above the noise."""
        return self.bias.low <= 0

    def error(self, averaged: int) -> float:
        """Squared relative error of a mean of that many gradients."""
        return (0.0 if self.unbiased else self.bias.value**2) + self.variance.value / averaged


@dataclass(frozen=True)
class Report:
    """``truth`` says where the true gradient comes from, ``norm`` is its length, ``rules`` are as they were given."""

    truth: str
    norm: float
    rules: tuple[Measured, ...]

    def __str__(self) -> str:
        header = ("rule", "f evals", "bias", "variance", "cosine", "ms/draw", "kB/draw", "draws")
        rows = [header, *(_cells(r) for r in self.rules)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]
        return "\n".join(
            [
                f"True gradient: {self.truth}; length {self.norm:.4g}.",
                "Bias and variance are relative to it, intervals are 95 %, kB are kept for the backward pass.",
                "",
                lines[0],
                "-" * len(lines[0]),
                *lines[1:],
                "",
                self.advice,
            ]
        )

    @property
    def advice(self) -> str:
        """One plain sentence: which rule, at which cost, and when another."""
        count = min(r.evaluations for r in self.rules)
        cheap = sorted((r for r in self.rules if r.evaluations == count), key=lambda r: r.error(_HORIZON))
        best, others = cheap[0], cheap[1:]
        sentence = f"With {count} evaluation{'s' * (count > 1)} of f per step and about {_HORIZON} steps averaged, "
        sentence += f"{best.name}: {_bias(best)}"
        if others:
            ratio = best.variance.value / max(others[0].variance.value, 1e-300)
            sentence += f", variance {ratio:.2g} times that of {others[0].name} ({_bias(others[0])})"
        steady = min(cheap, key=lambda r: r.error(1))
        gain = steady.error(10**12) - best.error(10**12)
        if steady is not best and gain > 0:
            turn = (best.variance.value - steady.variance.value) / gain
            sentence += f"; prefer {steady.name} ({_bias(steady)}) if fewer than about {turn:.2g} are averaged"
        dear = [r for r in self.rules if r.evaluations > count and r.unbiased]
        if dear and not best.unbiased:
            top = min(dear, key=lambda r: r.error(_HORIZON))
            sentence += f"; {top.name} shows no bias, at {top.evaluations} evaluations of f"
        return sentence + "."

    def plot(self, path: str) -> None:
        """Write the bias-variance picture to ``path`` (needs matplotlib)."""
        try:
            from softdraw.diagnosis.picture import picture
        except ModuleNotFoundError as missing:
            raise ModuleNotFoundError("plot needs matplotlib: pip install 'softdraw[cli]'") from missing
        picture(self, path)


def _bias(r: Measured) -> str:
    return "bias within noise" if r.unbiased else f"bias {100 * r.bias.value:.3g} %"


def _cells(r: Measured) -> tuple[str, ...]:
    bias = f"< {r.bias.high:.2g}" if r.unbiased else f"{r.bias.value:.3g} [{r.bias.low:.3g}, {r.bias.high:.3g}]"
    half = (r.variance.high - r.variance.low) / 2, (r.cosine.high - r.cosine.low) / 2
    return (
        r.name,
        str(r.evaluations),
        bias,
        f"{r.variance.value:.3g} ± {half[0]:.1g}",
        f"{r.cosine.value:.3f} ± {half[1]:.3f}",
        f"{r.milliseconds:.2f}",
        f"{r.bytes / 1000:.1f}",
        str(r.draws),
    )
