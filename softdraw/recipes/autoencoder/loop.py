"""The training loop: one generator decides everything, and the state between two epochs fits in one checkpoint."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import softdraw
from softdraw.errors import InputError
from softdraw.metrics import CodeUsage
from softdraw.recipes.autoencoder import data
from softdraw.recipes.autoencoder.model import Autoencoder, kl_of_latents, reconstruction
from softdraw.recipes.autoencoder.settings import Settings
from softdraw.recipes.runs.ranks import Ranks
from softdraw.schedules import TauScheduler

LEAST = 0.01  # nats per image: a latent that carries less is not in use
_CHUNK = 512  # images evaluated at once


class Trainer:
    """A run: ``epoch`` trains one more epoch, ``history`` has a record for each; ``state`` and ``load`` are its
    checkpoint.

    The generator, seeded once, gives in this order: the split, the weights, the seed of all evaluations, then for each
    epoch the order of the images and for each step the seed of its draws. Every rank has a copy of it in the same
    state, so all agree on the global batch without communication. An image's draws are keyed by its id: they depend
    neither on
    its place in the batch nor on the number of ranks.
    """

    def __init__(self, settings: Settings, device: torch.device, ranks: Ranks) -> None:
        self.settings, self.ranks, self.device = settings, ranks, device
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.images = data.load(settings.data, settings.validation, self.generator)
        self.fingerprint = self.images.fingerprint
        self.train, self.valid = self.images.train.to(device), self.images.valid.to(device)
        self.model = Autoencoder(self.images.train.mean(0), settings, self.generator).to(device)
        self.evaluation_seed = self._seed()
        # foreach: the operations of torch's default on the CPU, in fewer calls, so with the same bits.
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=settings.learning_rate, foreach=True)
        steps = settings.epochs * math.ceil(len(self.train) / settings.batch_size)
        self.tau = TauScheduler(self.model, settings.tau(steps))
        self.kl_weight = settings.kl_weight(steps)
        self.parallel = nn.parallel.DistributedDataParallel(self.model) if ranks.count > 1 else self.model
        self.history: list[dict[str, float]] = []
        self.seconds = {"training": 0.0, "total": 0.0}

    def epoch(self) -> dict[str, float]:
        """One pass over the training images and an evaluation on both parts; returns the new record of the history."""
        start = time.perf_counter()
        objective = self._pass()
        self.seconds["training"] += time.perf_counter() - start
        record = {
            "epoch": len(self.history) + 1,
            "step": self.tau.last_step,
            **({"tau": self.tau.get_last_value()} if self.settings.has_tau else {}),
            "objective": objective,  # the loss itself, on draws of the rule: relaxed ones of GumbelSoftmax
            **{f"train_{name}": value for name, value in self.evaluate(self.train, draws=1).items()},
            **{f"valid_{name}": value for name, value in self.evaluate(self.valid, self.settings.draws).items()},
        }
        if not all(math.isfinite(record[name]) for name in ("objective", "train_nelbo", "valid_nelbo")):
            raise InputError(
                f"the loss is not finite after epoch {record['epoch']}: the run diverged, and is worse than no code at "
                "all: lower `learning_rate`, or raise `tau_start`:`tau_end`"
            )
        self.history.append(record)
        self.seconds["total"] += time.perf_counter() - start
        return record

    def _pass(self) -> float:
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        order = torch.randperm(len(self.train), generator=self.generator)
        for ids in order.to(self.device).split(self.settings.batch_size):
            total += self.step(ids) * len(ids) / self.ranks.count
        return float(self.ranks.sum(total)) / len(self.train)

    def step(self, ids: Tensor) -> Tensor:
        """One step of the optimizer and of tau on the images ``ids``; returns this rank's share of the loss."""
        loss = self.loss(ids, self._seed())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.tau.step()
        return loss.detach()

    def loss(self, ids: Tensor, seed: Tensor) -> Tensor:
        """This rank's share of the loss of the global batch ``ids``: the mean over the ranks is that over the images.

        DDP takes the mean of the ranks' gradients, so a share is a sum over the slice, however few images that has,
        times ranks / images.
        """
        mine = self.ranks.slice(ids)
        error, kl = self.parallel(self.train[mine], seed, mine)
        return (error + self.kl_weight(self.tau.last_step) * kl).sum() * (self.ranks.count / len(ids))

    @torch.no_grad()
    def evaluate(self, x: Tensor, draws: int) -> dict[str, float]:
        """The nELBO of the discrete model, by exact draws from q(z | x), in nats per image, and how the codes are used.

        ``shuffled`` decodes each image from its neighbour's code instead, which shows that the decoder uses the
        code. Usage is that of the most likely codes: draws of a posterior that ignores the image are evenly used too.
        """
        usage = CodeUsage(self.settings.categories, self.settings.groups)
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        carried = torch.zeros(self.settings.groups, dtype=torch.float64, device=self.device)
        for ids in self.ranks.slice(torch.arange(len(x), device=self.device)).split(_CHUNK):
            logits, index = self.codes(x, torch.cat((ids, (ids[-1:] + 1) % len(x))), draws)  # and the last's neighbour
            logits, pixels = logits[: len(ids)], x[ids]
            usage.update(logits.argmax(-1))
            latents = kl_of_latents(logits)
            errors = (self._error(index[:, : len(ids)], pixels), self._error(index[:, 1:], pixels))
            sums += torch.stack([term.double().sum() for term in (errors[0], latents.sum(-1), errors[1])])
            carried += latents.double().sum(0)
        error, kl, shuffled = (self.ranks.sum(sums) / len(x)).tolist()
        used = usage.compute()
        return {
            "nelbo": error + kl,
            "reconstruction": error,
            "kl": kl,
            "shuffled_nelbo": shuffled + kl,
            "perplexity": used["perplexity_hard"],
            "active_codes": used["active_codes"],
            "active_latents": int((self.ranks.sum(carried) / len(x) >= LEAST).sum()),
        }

    def codes(self, x: Tensor, ids: Tensor, draws: int) -> tuple[Tensor, Tensor]:
        """Logits ``(B, L, K)`` of the images ``ids`` of ``x``, and exact draws ``(draws, B, L)``, always the same."""
        logits = self.model.encode(x[ids])
        return logits, softdraw.gumbel_max(logits, sample_shape=(draws,), seed=self.evaluation_seed, rows=ids)

    def without_code(self, x: Tensor) -> float:
        """The nELBO of a model that has no code: one image for all, the mean of the training images, in nats."""
        on = (self.train.sum(0) + 0.5) / (len(self.train) + 1)  # never 0 or 1, where an image not seen would cost inf
        parts = x.split(_CHUNK)
        return sum(float(reconstruction(on.logit().expand_as(part), part).double().sum()) for part in parts) / len(x)

    def pixel_logits(self, index: Tensor) -> Tensor:
        """What the decoder makes of code indices ``(..., L)``: ``(..., D)``."""
        index = index.clamp_min(0)  # -1, no draw: only where the logits are NaN, and then so is the KL term
        return self.model.decode(F.one_hot(index, self.settings.categories).float())

    def _error(self, index: Tensor, x: Tensor) -> Tensor:
        return reconstruction(self.pixel_logits(index), x).mean(0)

    def _seed(self) -> Tensor:
        return torch.randint(-(2**63), 2**63 - 1, (), generator=self.generator)

    def state(self) -> dict[str, Any]:
        """All that changes from epoch to epoch."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "tau": self.tau.state_dict(),
            "generator": self.generator.get_state(),
            "history": self.history,
            "seconds": self.seconds,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        weights = {name: x for name, x in state["model"].items() if name != "tau"}  # a buffer in older checkpoints
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict(state["optimizer"])
        self.tau.load_state_dict(state["tau"])
        self.generator.set_state(state["generator"])
        self.history, self.seconds = state["history"], state["seconds"]
