"""A run of the language model in words: what is trained, how it goes, what came of it."""

from __future__ import annotations

import math

from softdraw.recipes.diffusion.loop import Trainer
from softdraw.recipes.runs.run import Start

FILES: str = "curves.png, metrics.jsonl and checkpoint.pt"


def headline(trainer: Trainer) -> str:
    """The text with its fingerprint, how it is split, and the model."""
    s, text = trainer.settings, trainer.text
    digest, _, rest = text.fingerprint.partition(", ")
    python = rest.partition(", ")[2]
    weights = sum(w.numel() for w in trainer.weights)
    experts = "" if s.experts == 1 else f"{s.experts} experts each, "
    return (
        f"{s.data}: {text.characters:,} characters, {len(text.alphabet)} different, "
        f"{python + ', ' if python else ''}sha256 {digest[:12]}\n"
        f"{len(text.train):,} sequences of {s.length} to train on, {len(text.valid):,} held out\n"
        f"{s.layers} layers of width {s.width}, {experts}{weights:,} weights, {s.device}"
    )


def extension(trainer: Trainer, start: Start) -> str:
    """Where the learning rate was, and where it goes on from: it is a function of the length."""
    s, step = trainer.settings, trainer.steps * start.done
    before = s.rate(step - 1, trainer.steps * (start.extended_from or s.epochs))
    return (
        f"extended after epoch {start.done}: {s.epochs} epochs in place of {start.extended_from}; the learning rate "
        f"goes by\nthe length, so it goes on from {s.rate(step, trainer.steps * s.epochs):.3g} (it was {before:.3g})"
    )


def summary(trainer: Trainer) -> str:
    """The last epoch in a few words."""
    return f"held-out bound {_number(trainer.history[-1]['valid_bound'])} nats per character"


def table(trainer: Trainer) -> list[tuple[str, ...]]:
    """The last epoch beside the baselines."""
    last = trainer.history[-1]
    rows = {f"{name}s": (value, "") for name, value in trainer.baselines.items()}
    rows["masked diffusion, at most"] = (last["valid_bound"], f" ± {_number(last['valid_error'])}")
    named = [(name, _number(x) + error, _number(x / math.log(2))) for name, (x, error) in rows.items()]
    found = [("held-out text", "nats per character", "bits"), *named]
    if trainer.settings.experts == 1:
        return found
    loads = ("an expert's load", "", "", f"{last['least_load']:.0%} to {last['most_load']:.0%}")
    return [(*row, load) for row, load in zip(found, loads, strict=True)]


def remarks(trainer: Trainer) -> list[str]:
    """That it is no better than counting pairs, if so; and the seconds."""
    bound, bigram = trainer.history[-1]["valid_bound"], trainer.baselines["bigram"]
    found = []
    if failure(trainer) is None and bound >= bigram:
        found.append(f"No better than counting pairs of characters ({bigram:.3f} nats): train longer.")
    training, total = trainer.seconds["training"], trainer.seconds["total"]
    rate = trainer.train.numel() * len(trainer.history) / training
    return [*found, f"{total:.1f} seconds, of which {training:.1f} training: {rate:,.0f} characters per second"]


def failure(trainer: Trainer) -> str | None:
    """That the run diverged, if it did: its bound is above that of a law which knows nothing but the alphabet."""
    bound, limit = trainer.history[-1]["valid_bound"], math.log(len(trainer.text.alphabet))
    if bound <= limit:
        return None
    return (
        f"the run diverged: a held-out character costs {bound:.3g} nats after epoch {len(trainer.history)}, and "
        f"{limit:.2f} if all are equally likely: lower `learning_rate`"
    )


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1e5 else f"{value:.2e}"
