"""What defines a run: every setting, its default with the reason for it, and its check."""

from __future__ import annotations

from dataclasses import dataclass

from softdraw.errors import InputError

HEAD = 32  # numbers of an attention head


@dataclass(frozen=True)
class Settings:
    """A run is a function of its settings and of the text; both are in its ``config.json``."""

    data: str = "pydoc"  # Python's own manual, which every Python contains: real English, nothing is downloaded
    length: int = 128  # characters of a sequence, which the model sees alone
    width: int = 96  # numbers of a character inside the model: three heads
    layers: int = 3  # 0.3 million weights; more of them learn less in two minutes
    experts: int = 1  # feed-forward layers of a block: one for all characters, or several that a router chooses from
    epochs: int = 6  # 600 steps
    batch_size: int = 32  # sequences a step
    learning_rate: float = 3e-3  # Adam's at its highest
    warmup: int = 30  # steps until it is there; after that it goes down to 0 in a line
    clip: float = 1.0  # the largest norm of a gradient
    validation: float = 0.1  # share of the sequences that is never trained on
    draws: int = 4  # sets of masked positions for each held-out sequence
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if not 2 <= self.length <= 2**16:
            raise InputError(f"`length` must be from 2 to 65536 characters, got {self.length}")
        if self.width < HEAD or self.width % HEAD or self.width > 2**14:
            raise InputError(f"`width` must be a multiple of {HEAD} from {HEAD} to 16384, got {self.width}")
        if not 1 <= self.layers <= 1000:
            raise InputError(f"`layers` must be from 1 to 1000, got {self.layers}")
        if not 1 <= self.experts <= 1000:
            raise InputError(f"`experts` must be from 1 to 1000, got {self.experts}")
        for name in ("epochs", "batch_size"):
            count = getattr(self, name)
            if not 1 <= count < 2**31:
                raise InputError(f"`{name}` must be at least 1 and below 2**31, got {count}")
        if not 0 < self.learning_rate <= 1e38:
            raise InputError(f"`learning_rate` must be positive and at most 1e38, got {self.learning_rate}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"`seed` must be from 0 to 2**63 - 1, got {self.seed}")

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0, in a run of this many."""
        rise = min(1.0, (step + 1) / self.warmup)
        return self.learning_rate * rise * (1 - step / steps)
