r"""Polynomial programming: 128 binary latents are trained by each rule, and the exact loss at the end is compared.

    min over theta of E_{X_i ~ Cat(softmax theta_i)} [(1/L) sum_i |X_i - c|^p],   L = 128, c = 0.45

X_i is the first coordinate of a one-hot of two; theta starts uniform in (-0.01, 0.01); 64 joint samples a step; Adam at
1e-3; 8,000 steps. The optimum is c^p, every X_i being 0, and a biased rule does not reach it.

Source: Liu et al. (2023), "Bridging discrete and backpropagation"; the figures are those of a numpy
re-implementation (one seed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.distributions import Independent

from softdraw.errors import counted
from softdraw.laws import Bernoulli, OneHotCategorical
from softdraw.reproduce.table import Table
from softdraw.rules import (
    ZGR,
    DisARM,
    GappedStraightThrough,
    LeaveOneOut,
    ReinMax,
    StraightThrough,
    StraightThroughGumbel,
)
from softdraw.rules.pathwise import Pathwise
from softdraw.rules.score_function import ScoreFunction
from softdraw.verbs import expect

CENTRE, LATENTS, SAMPLES, STEPS, RATE = 0.45, 128, 64, 8_000, 1e-3
OPTIMUM = {1.5: 0.30187, 2.0: 0.20250, 3.0: 0.09113}
# (label, rule or None for the exact gradient, the loss after 8,000 steps for p = 1.5, 2, 3)
PUBLISHED: list[tuple[str, Pathwise | ScoreFunction | None, dict[float, float]]] = [
    ("exact gradient", None, {1.5: 0.30206, 2.0: 0.20268, 3.0: 0.09126}),
    ("RLOO, 64 samples", LeaveOneOut(SAMPLES), {1.5: 0.30253, 2.0: 0.20313, 3.0: 0.09160}),
    ("DisARM, 32 pairs", DisARM(SAMPLES // 2), {1.5: 0.30301, 2.0: 0.20358, 3.0: 0.09194}),
    ("ReinMax tau=1", ReinMax(1.0), {1.5: 0.30528, 2.0: 0.20372, 3.0: 0.09154}),
    ("ZGR", ZGR(), {1.5: 0.30528, 2.0: 0.20372, 3.0: 0.09154}),
    ("ST-GS tau=0.1", StraightThroughGumbel(0.1), {1.5: 0.33621, 2.0: 0.22043, 3.0: 0.09464}),
    ("ST", StraightThrough(), {1.5: 0.35227, 2.0: 0.24754, 3.0: 0.12133}),
    ("GST gap=1", GappedStraightThrough(), {1.5: 0.35227, 2.0: 0.24754, 3.0: 0.12133}),
]


def exact_loss(theta: Tensor, p: float) -> Tensor:
    """E[loss], each latent summed over its two values."""
    values = torch.tensor([(1 - CENTRE) ** p, CENTRE**p], dtype=theta.dtype)
    return (theta.softmax(-1) * values).sum(-1).mean()


def loss(rule: Pathwise | ScoreFunction | None, theta: Tensor, p: float, generator: torch.Generator) -> Tensor:
    """One step's estimate of E[loss] from 64 joint samples."""
    if rule is None:
        return exact_loss(theta, p)
    if isinstance(rule, DisARM):
        bits = Independent(Bernoulli(theta[:, 0] - theta[:, 1]), 1)
        return expect(lambda b: (b - CENTRE).abs().pow(p).mean(-1), bits, rule, generator=generator)
    samples = SAMPLES if isinstance(rule, Pathwise) else None
    law = Independent(OneHotCategorical(theta), 1)

    def f(x: Tensor) -> Tensor:
        return (x[..., 0] - CENTRE).abs().pow(p).mean(-1)

    return expect(f, law, rule, samples=samples, generator=generator)


def train(rule: Pathwise | ScoreFunction | None, p: float, steps: int = STEPS, seed: int = 0) -> float:
    """The exact loss after ``steps`` of Adam."""
    generator = torch.Generator().manual_seed(seed)
    theta = (torch.rand(LATENTS, 2, generator=generator) * 0.02 - 0.01).requires_grad_()
    adam = torch.optim.Adam([theta], lr=RATE)
    for _ in range(steps):
        adam.zero_grad()
        loss(rule, theta, p, generator).backward()
        adam.step()
    return exact_loss(theta.detach().double(), p).item()


def run(p: float = 2.0, steps: int = STEPS, track: Callable[[list], Iterable] = iter) -> Table:
    """The table for one p; ``track`` wraps the rows, for a progress bar."""
    rows = [(label, f"{figures[p]:.5f}", f"{train(rule, p, steps):.5f}") for label, rule, figures in track(PUBLISHED)]
    other = "" if steps == STEPS else f" Ours after {counted(steps, 'step')}, not {STEPS}."
    note = f"The optimum is {OPTIMUM[p]:.5f}.{other}"
    return Table(f"Exact loss after {STEPS} steps, p = {p:g}", ("rule", "published", "ours"), rows, note)
