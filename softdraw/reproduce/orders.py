r"""Learning one permutation: the loss under a Plackett-Luce law is minimised with each estimator of its gradient.

    min over theta of E_{b ~ PL(theta)} |P_b - T|^2,   d = 8,   T = 1/d + 0.05 on the diagonal, 1/d - 0.05/7 elsewhere

theta starts at 0; one sample a step; Adam at 0.01; 50,000 steps; double. The loss starts at 7.02286 and ends, at the
identity, at 6.22286. It is linear in the permutation matrix, but a relaxed matrix has a smaller square, so that REBAR's
control is not the loss itself. REBAR learns its weight and its tau, RELAX the weights of a linear control, both by the
variance of the gradient at the sample that theta is trained with.

Source: Gadetsky et al. (2020), "Low-variance black-box gradient estimates for the Plackett-Luce distribution",
section 5.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from softdraw.laws import PlackettLuce
from softdraw.reproduce.table import Table, figure
from softdraw.rules import LeaveOneOut, Rebar, Reinforce, Relax
from softdraw.rules.score_function import ScoreFunction
from softdraw.verbs import expect

ITEMS, STEPS, RATE = 8, 50_000, 0.01
START, OPTIMUM = 7.02286, 6.22286
DRAWS = 2000  # gradients that a variance is measured on
_LOOK = 100  # steps after which the exact loss is looked at


def target(d: int) -> Tensor:
    """T."""
    return torch.full((d, d), 1 / d - 0.05 / (d - 1), dtype=torch.float64) + torch.eye(d).double() * 0.05 * d / (d - 1)


def f(law: PlackettLuce) -> Callable[[Tensor], Tensor]:
    """The loss of orders, and of relaxed ones, which are matrices already."""
    t = target(law.theta.shape[-1])
    return lambda order: (law.matrix(order) - t).square().sum((-2, -1))


def exact_loss(theta: Tensor) -> Tensor:
    """E f. Each permutation matrix has the square d, so only the probabilities of places count."""
    t = target(theta.shape[-1])
    return len(t) + t.square().sum() - 2 * (PlackettLuce(theta).marginals() * t).sum((-2, -1))


@dataclass
class Estimator:
    """A row of the table: how a gradient is estimated, and the parameters of its control variate."""

    label: str
    evaluations: int  # of f, for one gradient
    rule: Callable[[], ScoreFunction] | None = None  # None: the exact gradient
    learned: list[Tensor] = field(default_factory=list)

    def loss(self, theta: Tensor, generator: torch.Generator) -> Tensor:
        """An estimate of the loss, whose gradient estimates the gradient."""
        if self.rule is None:
            return exact_loss(theta)
        law = PlackettLuce(theta)
        return expect(f(law), law, self.rule(), generator=generator)

    def gradient(self, theta: Tensor, generator: torch.Generator) -> Tensor:
        """One gradient for theta; the gradient of its square, which that of its variance is, goes to the control."""
        (g,) = torch.autograd.grad(self.loss(theta, generator), theta, create_graph=bool(self.learned))
        if self.learned:
            g.square().sum().backward(inputs=self.learned)
        return g.detach()

    def variance(self, theta: Tensor, draws: int, seed: int = 1) -> float:
        """E |g - E g|^2 at theta."""
        if self.rule is None:
            return 0.0
        each = theta.detach().expand(draws, -1).clone().requires_grad_()
        (g,) = torch.autograd.grad(self.loss(each, torch.Generator().manual_seed(seed)).sum(), each)
        return g.var(0).sum().item()


def estimators(d: int) -> list[Estimator]:
    """Every row, with controls that have learned nothing yet."""
    eta, log_tau = (torch.full((), x, dtype=torch.float64, requires_grad=True) for x in (1.0, 0.0))
    weights = torch.zeros(d, d, dtype=torch.float64, requires_grad=True)
    return [
        Estimator("exact gradient", 0),
        Estimator("REINFORCE", 1, Reinforce),
        Estimator("leave-one-out", 2, lambda: LeaveOneOut(2)),
        Estimator("REBAR", 3, lambda: Rebar(log_tau.exp(), eta), [eta, log_tau]),
        Estimator("RELAX", 1, lambda: Relax(lambda y: (y * weights).sum((-2, -1))), [weights]),
    ]


@dataclass(frozen=True)
class Trained:
    """What training came to: the exact loss at the end, theta, and theta where half of the way was made."""

    loss: float
    theta: Tensor
    halfway: Tensor | None
    variance: float | None  # where half of the way was made


def train(estimator: Estimator, d: int = ITEMS, steps: int = STEPS, seed: int = 0, draws: int = DRAWS) -> Trained:
    """Adam on theta and, at the same rate, on the control."""
    generator = torch.Generator().manual_seed(seed)
    theta = torch.zeros(d, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([theta, *estimator.learned], lr=RATE)
    goal = exact_loss(theta.detach()).item() - 0.05 * d
    halfway, variance = None, None
    for step in range(steps):
        adam.zero_grad()
        theta.grad = estimator.gradient(theta, generator)
        adam.step()
        if halfway is None and step % _LOOK == 0 and exact_loss(theta.detach()).item() <= goal:
            halfway = theta.detach().clone()
            variance = estimator.variance(halfway, draws)
    return Trained(exact_loss(theta.detach()).item(), theta.detach(), halfway, variance)


def run(steps: int = STEPS, d: int = ITEMS, track: Callable[[list], Iterable] = iter, draws: int = DRAWS) -> Table:
    """The table; ``track`` wraps the list of rows, for a progress bar."""
    rows, start = [], torch.zeros(d, dtype=torch.float64)
    for estimator in track(estimators(d)):
        first = estimator.variance(start, draws)
        found = train(estimator, d, steps, draws=draws)
        half = "-" if found.variance is None else figure(found.variance)
        evaluations = str(estimator.evaluations) if estimator.rule is not None else "all"
        rows.append((estimator.label, evaluations, figure(first), half, f"{found.loss:.4f}"))
    header = ("estimator", "evaluations of f", "variance at the start", "variance halfway", f"loss after {steps} steps")
    best = exact_loss(start).item() - 0.1 * d
    note = f"Published: from {START:.4f} to {OPTIMUM:.4f}." if d == ITEMS else ""
    note = f"{note} Exact: from {exact_loss(start).item():.4f} to {best:.4f}. Controls learn while theta does."
    return Table(f"A permutation of {d} items, one sample a step", header, rows, note.strip())
