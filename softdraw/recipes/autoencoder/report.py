"""A run of the autoencoder in words: what is trained, its progress, its result."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path

from softdraw.errors import counted
from softdraw.recipes.autoencoder.loop import LEAST, Trainer
from softdraw.recipes.runs.run import Start

FILES: str = "Pictures, metrics.jsonl and checkpoint.pt"
_TAU = "`tau_start`:`tau_end`"


def headline(trainer: Trainer) -> str:
    """The images, how they are split, the codes and the rule."""
    s, images = trainer.settings, trainer.images
    shape = f"{images.shape[0]}x{images.shape[1]}" + (" in colour" if len(images.shape) == 3 else "")
    return (
        f"{_place(s.data)}: {len(images.train):,} images of {shape} to train on, {len(images.valid):,} held out\n"
        f"{s.groups}x{s.categories} codes, {s.rule}, {s.device}"
    )


def _place(data: str) -> str:
    """The path of the data, from this folder on where it is in it."""
    here = Path.cwd()
    return str(Path(data).relative_to(here)) if Path(data).is_relative_to(here) else data


def extension(trainer: Trainer, start: Start) -> str:
    """Where tau and the weight of the KL term were, and where they go on from: they are functions of the length."""
    s, step = trainer.settings, trainer.tau.last_step
    a_pass = math.ceil(len(trainer.train) / s.batch_size)
    lengths = (a_pass * (start.extended_from or s.epochs), a_pass * s.epochs)
    weights = [s.kl_weight(steps)(step) for steps in lengths]
    text = (
        f"extended after epoch {start.done}: {counted(s.epochs, 'epoch')} in place of {start.extended_from}; schedules "
        f"go by the length,\nso the KL weight goes on from {weights[1]:.3g} (it was {weights[0]:.3g})"
    )
    if not s.has_tau:
        return text
    taus = [s.tau(steps)(step) for steps in lengths]
    return f"{text} and tau from {taus[1]:.3g} (it was {taus[0]:.3g})"


def summary(trainer: Trainer) -> str:
    """The last epoch in a few words."""
    last = trainer.history[-1]
    tau = f"tau {last['tau']:.3g}  " if trainer.settings.has_tau else ""
    return f"held-out nELBO {_number(last['valid_nelbo'])} nats  {tau}perplexity {last['valid_perplexity']:.2f}"


def table(trainer: Trainer) -> list[tuple[str, ...]]:
    """The last epoch on both parts, by exact draws, in nats per image where no unit is given."""
    s, last = trainer.settings, trainer.history[-1]

    def row(name: str, key: str, digits: int = 2, of: int | None = None) -> tuple[str, ...]:
        values = (last[f"{part}_{key}"] for part in ("train", "valid"))
        return (name, *(_number(value, digits) + (f" of {of}" if of else "") for value in values))

    gaps = (last[f"{part}_shuffled_nelbo"] - last[f"{part}_nelbo"] for part in ("train", "valid"))
    return [
        ("exact draws, nats per image", "training images", "held-out images"),
        row("negative ELBO", "nelbo"),
        row("  reconstruction", "reconstruction"),
        row("  KL to the uniform prior", "kl"),
        (
            "negative ELBO, one image for all",
            *(_number(trainer.without_code(x)) for x in (trainer.train, trainer.valid)),
        ),
        row("negative ELBO, codes shuffled", "shuffled_nelbo"),
        ("  difference", *(_number(gap) for gap in gaps)),
        (
            "information in a code, bits",
            *(f"{last[f'{part}_kl'] / math.log(2):.2f}" for part in ("train", "valid")),
        ),
        row("perplexity of the codes", "perplexity", of=s.categories),
        row("active codes", "active_codes", 0, of=s.groups * s.categories),
        row(f"latents with {LEAST:g} nats or more", "active_latents", 0, of=s.groups),
    ]


def remarks(trainer: Trainer) -> list[str]:
    """Latents that carry nothing, a result that is worse than that of no code, and the seconds."""
    s, last = trainer.settings, trainer.history[-1]
    found = []
    idle = s.groups - int(last["valid_active_latents"])
    if idle:
        verb = "carries" if idle == 1 else "carry"
        found.append(f"{idle} of {s.groups} latents {verb} less than {LEAST:g} nats of a held-out image.")
    none = trainer.without_code(trainer.valid)
    if failure(trainer) is None and last["valid_nelbo"] >= none:
        found.append(
            textwrap.fill(
                f"Worse than no code at all: a held-out image costs {_number(last['valid_nelbo'])} nats, and "
                f"{none:.2f} with one image for all. {_way_out(trainer)}",
                width=80,
            )
        )
    training, total = trainer.seconds["training"], trainer.seconds["total"]
    rate = len(trainer.train) * len(trainer.history) / training
    return [*found, f"{total:.1f} seconds, of which {training:.1f} training: {rate:,.0f} samples per second"]


def _way_out(trainer: Trainer) -> str:
    if trainer.history[-1]["train_nelbo"] < trainer.without_code(trainer.train):
        return "Training images cost less: it learns them by heart. Stop earlier, or add images."
    return "Train longer, or with a smaller learning rate."


def failure(trainer: Trainer) -> str | None:
    """That the run diverged, if it did.

    A decoder that knows nothing gives every pixel the probability 0.5, which costs log 2 nats. With a code of the
    largest information, L log K, the negative ELBO is D log 2 + L log K. A training that ends above that on its own
    images has diverged.
    """
    s, nelbo = trainer.settings, trainer.history[-1]["train_nelbo"]
    if nelbo <= trainer.train.shape[1] * math.log(2) + s.groups * math.log(s.categories):
        return None
    return (
        f"the run diverged: a training image costs {_number(nelbo)} nats after epoch {len(trainer.history)}, far worse "
        f"than no code at all ({trainer.without_code(trainer.train):.2f} with one image for all): lower "
        f"`learning_rate`, or raise {_TAU}"
    )


def _number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if abs(value) < 1e5 else f"{value:.2e}"
