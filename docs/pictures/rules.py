"""Bias and spread of gradient rules over tau, on two small objectives: python docs/pictures/rules.py

f(y) = |<v, y> - 0.45|^power for one variable of eight categories, power 1.5 and 4: the order of rules depends on it.
Both figures are in lengths of the true gradient, which is enumerated; those of the rules are over 40,000 draws.
LeaveOneOut evaluates f four times for an estimate, so its spread is that of a mean with a fourth of the estimates.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from matplotlib.figure import Figure
from style import BLUE, GREEN, GREY, ORANGE, PINK, SKY, YELLOW, new_figure, write
from torch import Tensor

import softdraw
from softdraw.rules.pathwise import Pathwise

DRAWS = 40_000
LOW, HIGH = (0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0), (1.0, 1.2, 1.4, 1.7, 2.0)
LOGITS = torch.tensor([0.9, -0.4, 0.1, 1.2, -0.8, 0.3, 0.6, -0.2])
VALUES = torch.linspace(0, 1, 8)
POWERS = (1.5, 4.0)
RULES = {
    "StraightThroughGumbel": (BLUE, softdraw.StraightThroughGumbel, LOW),
    "GumbelSoftmax": (SKY, softdraw.GumbelSoftmax, LOW),
    "GumbelRao, 30 samples": (GREEN, lambda tau: softdraw.GumbelRao(tau, 30), LOW),
    "StraightThrough": (GREY, softdraw.StraightThrough, HIGH),
    "ReinMax; ZGR at tau 1": (ORANGE, softdraw.ReinMax, HIGH),
    "MinimumVariance": (YELLOW, softdraw.MinimumVariance, (0.5, 1.0, 2.0, 10.0)),
}


Points = list[tuple[float, float]]


def objective(power: float) -> Callable[[Tensor], Tensor]:
    return lambda y: (y @ VALUES - 0.45).abs() ** power


def truth(f: Callable[[Tensor], Tensor]) -> Tensor:
    theta = LOGITS.clone().requires_grad_()
    softdraw.expect(f, softdraw.OneHotCategorical(theta), softdraw.Exact()).backward()
    return theta.grad


def figures(f: Callable[[Tensor], Tensor], rule: Pathwise) -> tuple[float, float]:
    """Bias and spread: of the mean over the draws, and of one draw."""
    theta = LOGITS.expand(DRAWS, -1).clone().requires_grad_()
    f(softdraw.draw(theta, rule, seed=0)).sum().backward()
    exact, gradients = truth(f), theta.grad
    spread = gradients.var(0).sum()
    squares = (gradients.mean(0) - exact).square().sum() - spread / DRAWS  # less what the mean's own noise adds
    return (squares.clamp(min=0).sqrt() / exact.norm()).item(), (spread.sqrt() / exact.norm()).item()


def leave_one_out(f: Callable[[Tensor], Tensor], evaluations: int = 4) -> tuple[float, float]:
    """The same of the score-function rule, for one evaluation of f."""
    theta = LOGITS.expand(DRAWS // evaluations, -1).clone().requires_grad_()
    softdraw.expect(f, softdraw.OneHotCategorical(theta), softdraw.LeaveOneOut(evaluations), seed=0).sum().backward()
    return 0.0, (evaluations * theta.grad.var(0).sum()).sqrt().item() / truth(f).norm().item()


def measure(power: float) -> dict[str, tuple[str, Points, tuple[float, ...]]]:
    f = objective(power)
    found = {name: (c, [figures(f, rule(tau)) for tau in taus], taus) for name, (c, rule, taus) in RULES.items()}
    return found | {"LeaveOneOut, 4 samples": (PINK, [leave_one_out(f)], (1.0,))}


def make(measured: dict[float, dict[str, tuple[str, Points, tuple[float, ...]]]]) -> Figure:
    figure = new_figure(9, 4.4)
    for axes, (power, rules) in zip(figure.subplots(1, len(measured), squeeze=False)[0], measured.items(), strict=True):
        for name, (colour, points, taus) in rules.items():
            bias, spread = zip(*points, strict=True)
            axes.plot(bias, spread, "-", color=colour, linewidth=1.5)
            axes.scatter(
                bias, spread, s=[10 + 20 * min(tau, 3) for tau in taus], color=colour, linewidths=0, label=name
            )
        axes.set(xlabel="bias, in lengths of the true gradient", yscale="log")
        axes.set_title(f"power {power:g}; larger dots: larger tau", loc="left", fontsize=9)
        axes.grid(alpha=0.2)
    figure.axes[0].set_ylabel("spread for one evaluation of f, the same")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    return figure


if __name__ == "__main__":
    measured = {power: measure(power) for power in POWERS}
    for power, rules in measured.items():
        for name, (_, points, taus) in rules.items():
            print(f"power {power:g}, {name}: tau, bias, spread")
            for tau, (bias, spread) in zip(taus, points, strict=True):
                print(f"    {tau:g} {bias:.2f} {spread:.2f}")
    write("rules", "svg", lambda: make(measured))
