"""The autoencoder as a recipe, and the rules of a comparison of autoencoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from softdraw.errors import InputError
from softdraw.recipes.autoencoder import pictures
from softdraw.recipes.autoencoder.loop import Trainer
from softdraw.recipes.autoencoder.settings import Settings, rule_settings
from softdraw.recipes.runs.recipe import Metric, Recipe


def variants(rules: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The settings that each rule adds, by its name: what :func:`softdraw.recipes.runs.compare.plan` takes.

    Raises:
        InputError: a rule is unknown or named twice.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in rules:
        words = rule_settings(text)
        name = words["rule"] + (f":tau={words['tau_start']:.12g}" if "tau_start" in words else "")
        if name in found:
            raise InputError(f"`rules` names {name} twice: leave one out")
        found[name] = words
    return found


def _tau(settings: Settings) -> dict[str, Any]:
    """Start and end, where the rule has a tau."""
    return {"tau": [settings.tau_start, settings.tau_end] if settings.has_tau else None}


AUTOENCODER = Recipe(
    settings=Settings,
    trainer=Trainer,
    metrics=(
        Metric("valid_nelbo", "nelbo", "nELBO", "held-out negative ELBO (nats per image)"),
        Metric(
            "valid_reconstruction", "reconstruction", "recon-\nstruction", "held-out reconstruction (nats per image)"
        ),
        Metric("valid_kl", "kl", "KL", "held-out KL to the prior (nats per image)"),
    ),
    varies="rule",
    pictures=pictures.PICTURES,
    draw=pictures.draw_all,
    notes=_tau,
)
