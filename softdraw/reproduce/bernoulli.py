r"""One Bernoulli variable: the derivative of E[(b - t)^2] by its logit, at probability 1/2, and the variance of rules.

Source: the problem of Tucker et al. (2017), "REBAR", and Grathwohl et al. (2018), "Backpropagation through the void".
"""

from __future__ import annotations

import torch

from softdraw.errors import counted
from softdraw.laws import Bernoulli
from softdraw.reproduce.table import Table, figure
from softdraw.rules import DisARM, LeaveOneOut, Reinforce
from softdraw.rules.score_function import ScoreFunction
from softdraw.verbs import expect

TARGETS = (0.45, 0.49, 0.499)
TRUE = (0.025, 0.005, 0.0005)
PUBLISHED: list[tuple[str, ScoreFunction, tuple[float, ...]]] = [
    ("REINFORCE", Reinforce(), (1.594e-2, 1.564e-2, 1.563e-2)),
    ("RLOO, 2 samples", LeaveOneOut(2), (6.25e-4, 2.5e-5, 2.5e-7)),
    ("DisARM, 1 pair", DisARM(1), (0.0, 0.0, 0.0)),
]


def measure(rule: ScoreFunction, target: float, draws: int, seed: int = 0) -> tuple[float, float]:
    """Mean and variance of a rule's derivative over ``draws`` independent problems."""
    logits = torch.zeros(draws, dtype=torch.float64, requires_grad=True)
    expect(lambda b: (b - target) ** 2, Bernoulli(logits), rule, seed=seed).sum().backward()
    g = logits.grad
    assert g is not None
    return g.mean().item(), g.var(unbiased=False).item()


def run(draws: int = 1_000_000) -> Table:
    """The table."""
    rows = []
    for label, rule, published in PUBLISHED:
        for target, true, variance in zip(TARGETS, TRUE, published, strict=True):
            mean, ours = measure(rule, target, draws)
            rows.append((label, f"{target}", f"{true}", f"{mean:.6f}", figure(variance), figure(ours)))
    header = ("rule", "t", "true derivative", "ours, mean", "published variance", "ours, variance")
    return Table(f"One Bernoulli, {counted(draws, 'draw')}", header, rows, "REINFORCE has no baseline here.")
