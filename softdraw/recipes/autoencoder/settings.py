"""What defines a run: every setting, its default with the reason for it, and its check."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields
from typing import Any

from softdraw import schedules
from softdraw.errors import InputError
from softdraw.rules.pathwise import Pathwise
from softdraw.rules.spelling import parse_words

SCHEDULES = ("constant", "linear", "cosine", "exponential")


@dataclass(frozen=True)
class Settings:
    """A run is a function of its settings and of the pixels; both are in its ``config.json``."""

    data: str = "digits"  # scikit-learn's 1,797 scanned digits: real, and bundled, so nothing is downloaded
    groups: int = 10  # L latents of
    categories: int = 10  # K categories each: 33 bits at most; the KL term decides how many of them are used
    rule: str = "GumbelSoftmax"  # relaxed draws in training, with their own exact gradient; its tau is the run's:
    tau_start: float = 1.0  # smooth at first, for a gradient of low variance;
    tau_end: float = 0.5  # then closer to one-hot, which is what validation decodes
    schedule: str = "exponential"  # Jang et al.; reaches tau_end when half of the steps are done
    epochs: int = 200  # the held-out nELBO falls by less than a tenth of a nat over the last twenty
    batch_size: int = 64  # 23 steps an epoch on the digits
    learning_rate: float = 2e-3  # Adam's
    width: int = 256  # hidden units of the encoder and of the decoder
    # Share of the steps over which the weight of the KL term rises from 0 to 1. At full weight from the start it
    # presses codes to the prior before the decoder can read them: 20x10 codes, lr 1e-3 and 100 epochs of the
    # digits end at a held-out nELBO of 25.96 nats without the rise and at 24.66 with it.
    kl_warmup: float = 0.5
    validation: float = 0.2  # share of the images that is never trained on
    draws: int = 4  # exact draws for each validation image
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.data != "digits" and os.path.exists(self.data):  # a run may be resumed from another folder
            object.__setattr__(self, "data", os.path.abspath(self.data))
        if rule_settings(self.rule) != {"rule": self.rule}:
            raise InputError(f"`rule` {self.rule!r} is not in canonical words: pass **rule_settings({self.rule!r})")
        if self.groups < 1 or self.categories < 2:
            raise InputError(f"`groups` x `categories` must be at least 1x2, got {self.groups}x{self.categories}")
        if self.groups * self.categories > 2**24:
            raise InputError(
                f"`groups` x `categories` must be at most 2**24 codes, got {self.groups}x{self.categories}: take fewer"
            )
        tau = f"{self.tau_start}:{self.tau_end}"
        if not all(1e-38 <= tau <= 1e38 for tau in (self.tau_start, self.tau_end)):
            raise InputError(f"`tau_start`:`tau_end` must be from 1e-38 to 1e38, got {tau}")
        if self.schedule not in SCHEDULES:
            raise InputError(f"`schedule` must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        if self.schedule == "constant" and self.tau_start != self.tau_end:
            raise InputError(
                f"`schedule` constant holds one tau, got {tau}: give `tau_start`:`tau_end` as "
                f"{self.tau_start}:{self.tau_start}"
            )
        if self.schedule == "exponential" and self.tau_end > self.tau_start:
            raise InputError(
                f"`schedule` exponential goes down, got `tau_start`:`tau_end` {tau}: swap them, or use linear"
            )
        for name in ("epochs", "batch_size"):
            count = getattr(self, name)
            if not 1 <= count < 2**31:
                raise InputError(f"`{name}` must be at least 1 and below 2**31, got {count}")
        if not 0 < self.learning_rate <= 1e38:
            raise InputError(f"`learning_rate` must be positive and at most 1e38, got {self.learning_rate}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"`seed` must be from 0 to 2**63 - 1, got {self.seed}")

    def pathwise(self) -> Any:
        """The rule of the training draws; the run's tau takes the place of its own, where it has one."""
        return parse_words(self.rule, Pathwise)[0]

    @property
    def has_tau(self) -> bool:
        """Whether tau plays a part in the run."""
        return any(field.name == "tau" for field in fields(self.pathwise()))

    def tau(self, steps: int) -> schedules.Schedule:
        """Tau as a function of the step, for a run of this many steps."""
        start, end = self.tau_start, self.tau_end
        if start == end:
            return schedules.constant(start)
        if self.schedule == "exponential":
            return schedules.exponential(start, end, rate=(math.log(start) - math.log(end)) / (steps / 2))
        return {"linear": schedules.linear, "cosine": schedules.cosine}[self.schedule](start, end, steps)

    def kl_weight(self, steps: int) -> schedules.Schedule:
        """The weight of the KL term as a function of the step."""
        return schedules.linear(0.0, 1.0, max(1, round(self.kl_warmup * steps)))


def rule_settings(text: str) -> dict[str, Any]:
    """``"reinmax:tau=1.1"`` as the settings of a run: the rule by its class's name, and tau where the words give it."""
    rule, given = parse_words(text, Pathwise)
    changed = [f"{f.name}={getattr(rule, f.name)}" for f in fields(rule) if getattr(rule, f.name) != f.default]
    words = [type(rule).__name__, *(word for word in changed if not word.startswith("tau="))]
    tau = {"tau_start": float(rule.tau), "tau_end": float(rule.tau)} if "tau" in given else {}
    return {"rule": ":".join(words)} | tau
