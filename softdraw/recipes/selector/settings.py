"""What defines a run: every setting, its default with the reason for it, and its check."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from softdraw import schedules
from softdraw.errors import InputError
from softdraw.laws import Subset
from softdraw.rules.needs import Need
from softdraw.rules.spelling import parse_rules

RULES = "straight-through,zgr,imle:lam=100,relaxed-top-k,leave-one-out,reinforce"


@dataclass(frozen=True)
class Settings:
    """A run is a function of its settings and of the data; both are in its ``config.json``.

    Tau and the rates were chosen on other splits than those of seed 0, for the concrete selector as for k-subsets.
    """

    data: str = (
        "digits"  # scikit-learn's 1,797 scanned digits: 64 pixels, 10 classes; bundled, so nothing is downloaded
    )
    sizes: str = "5,10,20"  # the numbers k of features
    rules: str = RULES  # every rule that serves Subset without enumeration
    seeds: int = 5  # how often all is repeated: another split, other first weights, other noise
    epochs: int = 40  # of the selection
    batch_size: int = 64
    learning_rate: float = 5e-3  # Adam's, of the networks; constant for half of the steps, then linear to 0
    width: int = 32  # hidden units
    tau_start: float = 10.0  # of the laws of all selectors: theta / tau. At first nearly uniform, so that the network
    tau_end: float = 0.1  # meets all features; at the end nearly decided. Exponential between them.
    retraining: int = 30  # epochs of a new network on the chosen features, the same for every selector
    validation: float = 0.25  # share of the rows that is never trained on
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        _ = self.chosen_sizes, self.chosen_rules
        for name in ("seeds", "epochs", "batch_size", "width", "retraining"):
            count = getattr(self, name)
            if not 1 <= count < 2**31:
                raise InputError(f"`{name}` must be at least 1 and below 2**31, got {count}")
        if not 0 < self.learning_rate <= 1e38:
            raise InputError(f"`learning_rate` must be positive and at most 1e38, got {self.learning_rate}")
        tau = f"{self.tau_start}:{self.tau_end}"
        if not all(1e-30 <= tau <= 1e30 for tau in (self.tau_start, self.tau_end)) or self.tau_end > self.tau_start:
            raise InputError(
                f"`tau_start`:`tau_end` must be from 1e-30 to 1e30 and go down, got {tau}: 10:0.1 is the default"
            )
        if not 0 <= self.seed < 2**63:
            raise InputError(f"`seed` must be from 0 to 2**63 - 1, got {self.seed}")

    @cached_property
    def chosen_sizes(self) -> list[int]:
        """``sizes`` as numbers, which are in ascending order and below one another."""
        words = [word.strip() for word in self.sizes.split(",")]
        if not all(re.fullmatch(r"[0-9]{1,6}", word) and int(word) for word in words):
            raise InputError(f"`sizes` must be numbers of features from 1 on, as 5,10,20, got {self.sizes!r}")
        sizes = [int(word) for word in words]
        if sorted(set(sizes)) != sizes:
            raise InputError(f"`sizes` must go up, got {self.sizes!r}: write {','.join(map(str, sorted(set(sizes))))}")
        return sizes

    @cached_property
    def chosen_rules(self) -> dict[str, Any]:
        """``rules``, each under the name that tables show."""
        found: dict[str, Any] = {}
        for word, rule in zip(self.rules.split(","), parse_rules(self.rules), strict=True):
            name = ":".join([type(rule).__name__, *word.strip().split(":")[1:]])
            serving = Subset(torch.zeros(2), 1).offers
            if rule.needs not in serving or rule.needs is Need.STATES:
                why = "enumerates the subsets" if rule.needs is Need.STATES else f"needs {rule.needs.value}"
                raise InputError(f"`rules` names {name}, which {why}: choose from {RULES}")
            if name in found:
                raise InputError(f"`rules` names {name} twice: leave one out")
            found[name] = rule
        return found

    def tau(self, steps: int) -> schedules.Schedule:
        """Tau as a function of the step, for a selection of this many steps."""
        return lambda step: self.tau_start * (self.tau_end / self.tau_start) ** (step / steps)

    def rate(self, steps: int) -> schedules.Schedule:
        """What learning rates are multiplied by: 1 for half of the steps, then linear to 0."""
        return lambda step: min(1.0, 2.0 * (1.0 - step / steps))
