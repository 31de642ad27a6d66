"""A second recipe, as small as one can be: which of some features does a target depend on? A gate for each, drawn.

It shows that the runs need nothing of the autoencoder: this file is all that a recipe defines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import softdraw
from softdraw.errors import InputError
from softdraw.recipes.runs.ranks import Ranks
from softdraw.recipes.runs.recipe import Metric, Recipe


@dataclass(frozen=True)
class Settings:
    features: int = 6
    rate: float = 0.1
    epochs: int = 5
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.features < 2:
            raise InputError(f"`features` must be at least 2, got {self.features}")


class Trainer:
    """The loss counts the errors of a sum of the open features, which should be the first two, and the open gates."""

    def __init__(self, settings: Settings, device: torch.device, ranks: Ranks) -> None:
        self.settings, self.history, self.seconds = settings, [], {"total": 0.0}
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.x = torch.randn(64, settings.features, generator=self.generator).to(device)
        self.y, self.fingerprint = self.x[:, :2].sum(-1), "made from the seed"
        self.logits = torch.zeros(settings.features, requires_grad=True, device=device)

    def epoch(self) -> dict[str, float]:
        seed = torch.randint(2**62, (), generator=self.generator)
        gates = softdraw.draw(softdraw.Bernoulli(logits=self.logits.expand_as(self.x)), softdraw.ZGR(), seed=seed)
        loss = ((self.x * gates).sum(-1) - self.y).square().mean() + 0.1 * gates.mean()
        (gradient,) = torch.autograd.grad(loss, self.logits)
        with torch.no_grad():
            self.logits -= self.settings.rate * gradient
        self.seconds["total"] += 1.0
        self.history.append({"epoch": len(self.history) + 1, "loss": float(loss.detach()), "open": self.open()})
        return self.history[-1]

    def open(self) -> float:
        return float(self.logits.detach().sigmoid().sum())

    def state(self) -> dict[str, Any]:
        everything: dict[str, Tensor | Any] = {"logits": self.logits.detach(), "generator": self.generator.get_state()}
        return everything | {"history": self.history, "seconds": self.seconds}

    def load(self, state: dict[str, Any]) -> None:
        self.logits = state["logits"].requires_grad_()
        self.generator.set_state(state["generator"])
        self.history, self.seconds = state["history"], state["seconds"]


GATE = Recipe(
    settings=Settings,
    trainer=Trainer,
    metrics=(Metric("loss", "loss", "loss", "squared error"), Metric("open", "open", "open", "gates")),
    varies="rate",
    pictures=("gates.png",),
    draw=lambda trainer: {"gates.png": b"\x89PNG" + bytes(trainer.settings.features)},
)
