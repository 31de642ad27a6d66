"""What defines a run: every setting, its default with the reason for it, and its check."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Any

import torch

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
        if parse_rule(self.rule) != {"rule": self.rule}:
            raise InputError(f"rule {self.rule!r} is not in canonical words: pass **parse_rule({self.rule!r})")
        if self.groups < 1 or self.categories < 2:
            raise InputError(
                f"--latents must be at least 1x2, got {self.groups}x{self.categories}: groups x categories, as in 20x10"
            )
        if self.groups * self.categories > 2**24:
            raise InputError(f"--latents {self.groups}x{self.categories} has more than 2**24 codes: take fewer")
        if not all(1e-38 <= tau <= 1e38 for tau in (self.tau_start, self.tau_end)):
            raise InputError(
                f"--tau must be from 1e-38 to 1e38, got {self.tau_start}:{self.tau_end}: start:end, as in 1.0:0.5"
            )
        if self.schedule not in SCHEDULES:
            raise InputError(f"--schedule must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        if self.schedule == "constant" and self.tau_start != self.tau_end:
            raise InputError(
                f"--schedule constant holds one tau, got {self.tau_start}:{self.tau_end}: write --tau {self.tau_start}"
            )
        if self.schedule == "exponential" and self.tau_end > self.tau_start:
            raise InputError(
                f"--schedule exponential goes down, got --tau {self.tau_start}:{self.tau_end}: swap them, or use linear"
            )
        for name, count in (("--epochs", self.epochs), ("--batch", self.batch_size)):
            if not 1 <= count < 2**31:
                raise InputError(f"{name} must be at least 1 and below 2**31, got {count}")
        if not 0 < self.learning_rate <= 1e38:
            raise InputError(f"--lr must be positive and at most 1e38, got {self.learning_rate}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed must be from 0 to 2**63 - 1, got {self.seed}")

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


def parse_latents(text: str) -> dict[str, int]:
    """``"20x10"`` as 20 groups of 10 categories."""
    match = re.fullmatch(r"\s*(\d{1,6})\s*[xX×]\s*(\d{1,6})\s*", text)
    if not match:
        raise InputError(f"--latents must be groups x categories, as in 20x10, got {text!r}")
    return {"groups": int(match[1]), "categories": int(match[2])}


def parse_tau(text: str) -> dict[str, float]:
    """``"1.0:0.5"`` as start and end; one number is both."""
    start, colon, end = text.partition(":")
    try:
        return {"tau_start": float(start), "tau_end": float(end if colon else start)}
    except ValueError:
        raise InputError(f"--tau must be a number, or start:end as in 1.0:0.5, got {text!r}") from None


def parse_rule(text: str) -> dict[str, Any]:
    """``"reinmax:tau=1.1"`` as the settings of a run: the rule by its class's name, and tau where the words give it."""
    rule, given = parse_words(text, Pathwise)
    changed = [f"{f.name}={getattr(rule, f.name)}" for f in fields(rule) if getattr(rule, f.name) != f.default]
    words = [type(rule).__name__, *(word for word in changed if not word.startswith("tau="))]
    return {"rule": ":".join(words)} | (parse_tau(str(rule.tau)) if "tau" in given else {})


def resolve_device(name: str) -> torch.device:
    """``auto`` is a CUDA GPU where there is one, else the CPU; any other name must be a device that is here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).sum().item()
    except Exception:  # each backend has an error type of its own for "not here"
        here = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise InputError(
            f"--device {name!r} is not a device of this machine: use auto, or one of {', '.join(here)}"
        ) from None
    return device
