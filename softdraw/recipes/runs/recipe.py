"""The contract between a recipe and its runs: settings, a trainer, metrics, pictures; and words, for a command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from softdraw.recipes.runs.ranks import Ranks

if TYPE_CHECKING:
    from softdraw.recipes.runs.run import Start


class Trainer(Protocol):
    """One training: all that changes from epoch to epoch is in ``state``, and the rest follows from the settings.

    A command gives it a function ``on_step``. An epoch that takes long may call it, with the share of it that is done.
    """

    settings: Any
    fingerprint: str  # of the data: a run goes on with the data that it was started with, wherever they are now
    history: list[dict[str, float]]  # a record of each epoch; it has "epoch", counted from 1, and the metrics
    seconds: dict[str, float]  # what it took so far; "total" is shown

    def epoch(self) -> dict[str, float]:
        """Train for one epoch and evaluate; returns the record, which is then the last of ``history``."""
        ...

    def state(self) -> dict[str, Any]:
        """What ``torch.load(weights_only=True)`` can read back; ``history`` is in it under that name."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Continue from ``state``: the next epochs are those of a training that was never stopped."""
        ...


@dataclass(frozen=True)
class Metric:
    """A number of a trainer's records, the lower the better."""

    key: str  # in a record
    name: str  # in compare.json
    heading: str  # of a column
    label: str  # on an axis, with its unit


def _nothing(of: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Recipe:
    """What a recipe is made of.

    Args:
        settings: a frozen dataclass whose fields, numbers, text and booleans, all have defaults; it refuses bad ones
            with an :class:`~softdraw.errors.InputError`. ``epochs``, ``seed`` and ``device`` are among them. A field
            ``data``, where there is one, says where the data are, and may change while they stay the same.
        trainer: makes a :class:`Trainer` from settings, device and ranks.
        metrics: the first is the one that a comparison sorts by and plots; the others are shown beside it.
        varies: the setting that the entries of a comparison differ in.
        pictures: the names of the files that ``draw`` makes.
        draw: from a trainer to the content of each picture, by name.
        notes: what else a comparison says of an entry, from its settings.
    """

    settings: type[Any]
    trainer: Callable[[Any, torch.device, Ranks], Trainer]
    metrics: tuple[Metric, ...]
    varies: str
    pictures: tuple[str, ...] = ()
    draw: Callable[[Any], dict[str, bytes]] = _nothing
    notes: Callable[[Any], dict[str, Any]] = _nothing


class Report(Protocol):
    """What a recipe says of a run, in words: the module ``report`` of its package. A command shows them."""

    FILES: str  # what a run leaves in its folder, at the start of the last line

    def headline(self, trainer: Any) -> str:
        """What is about to be trained."""
        ...

    def extension(self, trainer: Any, start: Start) -> str:
        """What changes for a run that is made longer."""
        ...

    def summary(self, trainer: Any) -> str:
        """The last epoch in a few words."""
        ...

    def table(self, trainer: Any) -> list[tuple[str, ...]]:
        """The last epoch in full: the headings of the columns, then the rows."""
        ...

    def remarks(self, trainer: Any) -> list[str]:
        """What a reader of the table should know."""
        ...

    def failure(self, trainer: Any) -> str | None:
        """Why the result is of no use, if it is of none."""
        ...
