"""The training loop: all selectors side by side on the same batches; one generator decides everything."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from softdraw.errors import InputError
from softdraw.recipes.runs.ranks import Ranks
from softdraw.recipes.selector import data, filters
from softdraw.recipes.selector.model import Networks
from softdraw.recipes.selector.retraining import accuracies, batches
from softdraw.recipes.selector.selectors import Concrete, KSubset, Selector
from softdraw.recipes.selector.settings import Settings

CONCRETE = "concrete"
FILTERS: dict[str, Callable[[Tensor, Tensor, list[int]], list[Tensor]]] = {
    "mutual info": filters.mutual_information,
    "L1": filters.l1,
}


@dataclass
class Arm:
    """A selector for one k with the networks that it is trained with."""

    name: str
    k: int
    selector: Selector
    networks: Networks
    seconds: float = 0.0
    optimizer: torch.optim.Adam = field(init=False)

    def __post_init__(self) -> None:
        groups = [{"params": list(part.parameters())} for part in (self.networks, self.selector)]
        self.optimizer = torch.optim.Adam(groups, foreach=True)

    def step(
        self, batch: tuple[Tensor, Tensor, Tensor], tau: float, rates: tuple[float, float], seed: Tensor
    ) -> Tensor:
        """One step of the optimizer; returns the mean loss of each seed's network. They share nothing."""
        start = time.process_time()
        x, y, ids = batch
        losses = self.selector.losses(self.networks, x, y, tau, seed, ids).mean(-1)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self.optimizer.zero_grad()
        losses.sum().backward()
        self.optimizer.step()
        self.seconds += time.process_time() - start
        return losses.detach()

    def key(self) -> str:
        """What its numbers are called in a record."""
        return f"{self.name} k={self.k}"


class Trainer:
    """A run: ``epoch`` goes on by one, ``history`` has a record for each; ``state`` and ``load`` are its checkpoint.

    The generator, seeded once, gives in this order: the splits, the weights of all networks, then for each epoch the
    order of the rows and for each step the seed of its draws. In the first epoch the filters choose; at the end of
    the last one, networks are trained anew on what each selector has chosen: ``chosen`` and ``accuracy``.
    """

    def __init__(self, settings: Settings, device: torch.device, ranks: Ranks) -> None:
        if ranks.count > 1:
            raise InputError("the selectors train in one process: start the command without torchrun")
        self.settings, self.device = settings, device
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.features = data.load(settings.data)
        self.fingerprint, self.sizes = self.features.fingerprint, settings.chosen_sizes
        if self.sizes[-1] > len(self.features.names):
            raise InputError(
                f"`sizes` {settings.sizes} ask for more features than the {len(self.features.names)} of "
                f"{settings.data}: leave {self.sizes[-1]} out"
            )
        self.splits = data.split(self.features, settings.seeds, settings.validation, self.generator).to(device)
        self.steps = settings.epochs * math.ceil(self.splits.x.shape[1] / settings.batch_size)
        self.tau, self.rate = settings.tau(self.steps), settings.rate(self.steps)
        self.arms = [self._arm(name, rule, k) for k in self.sizes for name, rule in self._learned()]
        self.chosen: dict[str, Tensor] = {}  # (R, n) bool
        self.accuracy: dict[str, Tensor] = {}  # (R,), held out
        self.history: list[dict[str, float]] = []
        self.seconds: dict[str, float] = {"total": 0.0}
        self.done = 0  # steps

    def _learned(self) -> list[tuple[str, Any]]:
        return [*self.settings.chosen_rules.items(), (CONCRETE, None)]

    def _arm(self, name: str, rule: Any, k: int) -> Arm:
        s, n = self.settings, len(self.features.names)
        new = Concrete(k, s.seeds, n, self.generator) if rule is None else KSubset(rule, k, s.seeds, n)
        networks = Networks(s.seeds, new.inputs, s.width, self.features.classes, self.generator)
        return Arm(name, k, new.to(self.device), networks.to(self.device))

    @property
    def names(self) -> list[str]:
        """Every selector and filter, in the order of the tables."""
        return [name for name, _ in self._learned()] + list(FILTERS)

    def epoch(self) -> dict[str, float]:
        """One pass over the training rows; returns the new record of the history."""
        start = time.perf_counter()
        if not self.history:
            self._filter()
        losses = self._pass()
        record: dict[str, float] = {"epoch": len(self.history) + 1, "step": self.done, "tau": self.tau(self.done)}
        for arm in self.arms:
            x = arm.selector.decided(self.splits.valid_x)
            with torch.no_grad():
                record[f"{arm.key()} error"] = float(arm.networks.errors(x, self.splits.valid_y).mean())
            record[f"{arm.key()} loss"] = losses[arm.key()]
            self.seconds[arm.key()] = arm.seconds
        if not all(map(math.isfinite, record.values())):
            raise InputError(f"the loss is not finite after epoch {record['epoch']}: lower `learning_rate`")
        record["error"] = _mean([record[f"{arm.key()} error"] for arm in self.arms if arm.name != CONCRETE])
        if record["epoch"] == self.settings.epochs:
            record |= self._finish()
        self.history.append(record)
        self.seconds["total"] += time.perf_counter() - start
        return record

    def _filter(self) -> None:
        for name, choose in FILTERS.items():
            start = time.process_time()
            each_split = zip(self.splits.x.cpu(), self.splits.y.cpu(), strict=True)
            parts = [choose(x, y, self.sizes) for x, y in each_split]
            for k, each in zip(self.sizes, zip(*parts, strict=True), strict=True):
                self.chosen[f"{name} k={k}"] = torch.stack(each)
                self.seconds[f"{name} k={k}"] = (time.process_time() - start) / len(self.sizes)

    def _pass(self) -> dict[str, float]:
        sums = {arm.key(): 0.0 for arm in self.arms}
        for x, y, ids in batches(self.splits, self.settings.batch_size, self.generator):
            seed = torch.randint(-(2**63), 2**63 - 1, (), generator=self.generator)
            tau, share = self.tau(self.done), self.rate(self.done)
            # Rows of different splits have ids of their own.
            own = ids + self.splits.x.shape[1] * torch.arange(len(ids), device=ids.device).unsqueeze(-1)
            for arm in self.arms:
                rates = (share * self.settings.learning_rate, share * arm.selector.drift / math.sqrt(self.steps))
                sums[arm.key()] += float(arm.step((x, y, own), tau, rates, seed).mean()) * ids.shape[1]
            self.done += 1
        return {key: total / self.splits.x.shape[1] for key, total in sums.items()}

    def _finish(self) -> dict[str, float]:
        """Train anew on every choice, and say what came of it."""
        self.chosen |= {arm.key(): arm.selector.chosen().cpu() for arm in self.arms}
        keys = [f"{name} k={k}" for k in self.sizes for name in self.names]
        masks = torch.stack([self.chosen[key] for key in keys]).to(self.device)
        generator = torch.Generator().manual_seed(self.settings.seed)
        found = accuracies(self.splits, masks, self.features.classes, self.settings, generator)
        self.accuracy = dict(zip(keys, found, strict=True))
        record: dict[str, float] = {}
        for key in keys:
            record[f"{key} accuracy"] = float(self.accuracy[key].mean())
            record[f"{key} distinct"] = float(self.chosen[key].sum(-1).double().mean())
        return record

    def state(self) -> dict[str, Any]:
        """All that changes from epoch to epoch."""
        return {
            "arms": {
                arm.key(): [part.state_dict() for part in (arm.selector, arm.networks, arm.optimizer)]
                for arm in self.arms
            },
            "generator": self.generator.get_state(),
            "chosen": self.chosen,
            "accuracy": self.accuracy,
            "done": self.done,
            "history": self.history,
            "seconds": self.seconds,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        for arm in self.arms:
            for part, saved in zip((arm.selector, arm.networks, arm.optimizer), state["arms"][arm.key()], strict=True):
                part.load_state_dict(saved)
            arm.seconds = state["seconds"][arm.key()]
        self.generator.set_state(state["generator"])
        self.chosen, self.accuracy, self.done = state["chosen"], state["accuracy"], state["done"]
        self.history, self.seconds = state["history"], state["seconds"]


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
