"""The masked-diffusion language model as a recipe."""

from __future__ import annotations

from softdraw.recipes.diffusion import pictures
from softdraw.recipes.diffusion.loop import Trainer
from softdraw.recipes.diffusion.settings import Settings
from softdraw.recipes.runs.recipe import Metric, Recipe

DIFFUSION = Recipe(
    settings=Settings,
    trainer=Trainer,
    metrics=(Metric("valid_bound", "bound", "bound", "held-out bound (nats per character)"),),
    varies="width",
    pictures=pictures.PICTURES,
    draw=pictures.draw_all,
)
