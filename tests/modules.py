"""Every module that chooses, once; tests/test_modules_contract.py goes by property over this list."""

from __future__ import annotations

import torch

import softdraw
from softdraw.nn import Codebook, Gate, Latent, Router

WIDTH, GROUPS = 6, torch.tensor([0, 0, 1, 2, 2, 2])
MODULES = {
    "codebook": lambda: Codebook(WIDTH, 5, 4, 2),
    "shared codebook with a tau": lambda: Codebook(WIDTH, 5, 4, 2, rule=softdraw.ReinMax(tau=1.2), shared=True),
    "relaxed codebook": lambda: Codebook(WIDTH, 5, 4, rule=softdraw.GumbelSoftmax(tau=0.7)),
    "latent": lambda: Latent(WIDTH, 3, 4),
    "latent with noise in its rule": lambda: Latent(WIDTH, 3, 4, rule=softdraw.GumbelRao(tau=0.6, samples=3)),
    "noisy top-k": lambda: Router(WIDTH, 5, 2),
    "switch": lambda: Router(WIDTH, 5, 1, noise=False),
    "plackett-luce": lambda: Router(WIDTH, 5, 3, law="plackett-luce"),
    "subset": lambda: Router(WIDTH, 5, 2, law="subset"),
    "subset with a rule": lambda: Router(WIDTH, 5, 2, law="subset", rule=softdraw.StraightThrough(tau=1.3)),
    "hard-concrete": lambda: Gate(WIDTH),
    "bernoulli": lambda: Gate(WIDTH, law="bernoulli", rule=softdraw.StraightThroughGumbel(tau=0.8)),
    "gaussian": lambda: Gate((WIDTH,), law="gaussian"),
    "grouped gate": lambda: Gate(WIDTH, groups=GROUPS),
}


def made(name: str, seed: int = 0):
    """A module with parameters that differ from each other."""
    generator = torch.Generator().manual_seed(seed)
    module = MODULES[name]()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return module


def batch(rows: int = 8, seed: int = 1, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed)).to(dtype)


def loss(choice) -> torch.Tensor:
    """A number that depends on the value and on the law of a choice, the mean over the batch."""
    value = choice.value.float()
    w = torch.linspace(-1, 1, value[0].numel()).view(value[0].shape)
    return (value.square() * w + value).flatten(1).sum(1).mean() + choice.law.entropy().float().mean() * 0.3
