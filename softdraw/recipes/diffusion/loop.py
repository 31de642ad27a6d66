"""The training loop: a function of the settings and the text, to the last bit, on any number of ranks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import softdraw
from softdraw.errors import InputError
from softdraw.recipes.diffusion import data
from softdraw.recipes.diffusion.model import Transformer, counts, load, masked, penalty, surprise
from softdraw.recipes.diffusion.settings import Settings
from softdraw.recipes.runs.ranks import Ranks

PART = 8  # sequences that go through the model together


class Trainer:
    """A run: ``epoch`` goes on by one, ``history`` has a record for each; ``state`` and ``load`` are its checkpoint.

    Every draw is keyed by what it is for, under the seed of the run: the split, the order of an epoch, the masks of
    a sequence in an epoch. So there is no generator to save.

    Ranks: float sums depend on their order, and a matrix product on its shape. So the batch is cut into parts of fixed
    size, whatever the number of ranks; each part goes through the model on one of them, and the gradients of all parts
    are added in the order of the parts. The sum over the ranks before that adds zeros alone, which is exact.
    """

    def __init__(self, settings: Settings, device: torch.device, ranks: Ranks) -> None:
        self.settings, self.ranks, self.device = settings, ranks, device
        self.text = data.load(settings.data, settings.length, settings.validation, settings.seed)
        self.fingerprint = self.text.fingerprint
        self.train, self.valid = self.text.train.to(device), self.text.valid.to(device)
        self.baselines = {"unigram": data.unigram(self.text), "bigram": data.bigram(self.text)}
        generator = torch.Generator().manual_seed(settings.seed)
        self.model = Transformer(data.shares(self.text).float(), settings, generator).to(device)
        self.weights = list(self.model.parameters())
        self.optimizer = torch.optim.Adam(self.weights, lr=settings.learning_rate, betas=(0.9, 0.98), foreach=True)
        self.steps = math.ceil(len(self.train) / settings.batch_size)  # of an epoch
        self.history: list[dict[str, float]] = []
        self.seconds = {"training": 0.0, "total": 0.0}
        self.on_step: Callable[[float], None] = lambda share: None

    def epoch(self) -> dict[str, float]:
        """One pass over the training sequences and the bound of the held-out ones; returns the new record."""
        start = time.perf_counter()
        objective = self._pass(len(self.history))
        self.seconds["training"] += time.perf_counter() - start
        done = len(self.history) + 1
        record = {"epoch": done, "step": done * self.steps, "objective": objective, **self.evaluate(self.valid)}
        if not all(math.isfinite(value) for value in record.values()):
            raise InputError(
                f"the loss is not finite after epoch {done}: the run diverged, and is worse than counting characters: "
                "lower `learning_rate`"
            )
        self.history.append(record)
        self.seconds["total"] += time.perf_counter() - start
        return record

    def _pass(self, epoch: int) -> float:
        seed = softdraw.fold_in(self.settings.seed, "training", epoch).to(self.device)
        order = softdraw.gumbel_topk(
            torch.zeros(len(self.train), device=self.device), len(self.train), seed=softdraw.fold_in(seed, "order")
        )
        total = 0.0
        for i, ids in enumerate(order.split(self.settings.batch_size)):
            total += self.step(ids, softdraw.fold_in(seed, "masks", i), epoch * self.steps + i) * len(ids)
            self.on_step((i + 1) / self.steps)
        return total / len(self.train)

    def step(self, ids: Tensor, seed: Tensor, step: int) -> float:
        """One step of the optimizer on the sequences ``ids``; returns the loss of all of them."""
        value, *gradients = self.gradients(ids, seed)
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.grad = gradient
        torch.nn.utils.clip_grad_norm_(self.weights, self.settings.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(step, self.steps * self.settings.epochs)
        self.optimizer.step()
        return float(value)

    def gradients(self, ids: Tensor, seed: Tensor) -> list[Tensor]:
        """The mean loss of the sequences ``ids`` and its gradient by each of the weights, the same on every rank."""
        hidden = self.hidden(ids, counts(len(ids), self.settings.length, seed), seed)
        routes = softdraw.fold_in(softdraw.fold_in(seed, "routes"), ids)
        parts = math.ceil(len(ids) / PART)
        sums = torch.zeros(parts, 1 + sum(weight.numel() for weight in self.weights), device=self.device)
        for part, rows in self._parts(len(ids)):
            x, mask = self.train[ids[rows]], hidden[rows]
            logits, choices = self.model.routed(x.masked_fill(mask, self.model.mask), routes[rows])
            error = (surprise(logits, x, mask).sum() + len(rows) * penalty(choices)) / len(ids)
            found = (error.detach(), *torch.autograd.grad(error, self.weights))
            torch.cat([x.flatten() for x in found], out=sums[part])
        value, *flat = self.ranks.sum(sums).sum(0).split([1, *(weight.numel() for weight in self.weights)])
        return [value.squeeze(), *(x.view_as(weight) for x, weight in zip(flat, self.weights, strict=True))]

    def hidden(self, ids: Tensor, count: Tensor, seed: Tensor) -> Tensor:
        """What is masked of the sequences ``ids``: keyed by the sequence, wherever it is in the batch."""
        return masked(count, self.settings.length, softdraw.fold_in(seed, ids))

    def _parts(self, rows: int) -> Iterator[tuple[int, Tensor]]:
        """The parts that are this rank's, by their number, with the rows of each."""
        everything = torch.arange(rows, device=self.device).split(PART)
        return (each for each in enumerate(everything) if each[0] % self.ranks.count == self.ranks.rank)

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> dict[str, float]:
        """The bound of the sequences ``x`` in nats per character with its standard error, always with the same masks.

        A sequence is masked several times, and its counts are spread evenly over the length. The error is that of a
        mean over sequences; it holds what little the masks add. Where there are experts, the shares of the choices that
        fell on the least busy and on the busiest of a layer are there too, of all layers the extremes.
        """
        draws, ids = self.settings.draws, torch.arange(len(x), device=self.device)
        seed = softdraw.fold_in(self.settings.seed, "evaluation").to(self.device)
        errors = torch.zeros(draws, len(x), dtype=torch.float64, device=self.device)
        loads = torch.zeros(self.settings.layers, self.settings.experts, dtype=torch.float64, device=self.device)
        for draw in range(draws):
            count = counts(len(x), self.settings.length, seed, turn=draw / draws)
            hidden = self.hidden(ids, count, softdraw.fold_in(seed, draw))
            for _, rows in self._parts(len(x)):
                logits, choices = self.model.routed(x[rows].masked_fill(hidden[rows], self.model.mask))
                errors[draw, rows] = surprise(logits, x[rows], hidden[rows]).double()
                loads += load(choices) if choices else 0
        each = self.ranks.sum(errors).mean(0)
        record = {"valid_bound": float(each.mean()), "valid_error": float(each.std() / math.sqrt(len(x)))}
        if self.settings.experts == 1:
            return record
        shares = self.ranks.sum(loads)
        shares /= shares.sum(-1, keepdim=True)
        return record | {"least_load": float(shares.min()), "most_load": float(shares.max())}

    def state(self) -> dict[str, Any]:
        """All that changes from epoch to epoch."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "seconds": self.seconds,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history, self.seconds = state["history"], state["seconds"]
