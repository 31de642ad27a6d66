"""The selector as a recipe."""

from __future__ import annotations

from softdraw.recipes.runs.recipe import Metric, Recipe
from softdraw.recipes.selector import pictures
from softdraw.recipes.selector.loop import Trainer
from softdraw.recipes.selector.settings import Settings

SELECTOR = Recipe(
    settings=Settings,
    trainer=Trainer,
    metrics=(Metric("error", "error", "error", "held-out error of the k-subsets (mean of rules and sizes)"),),
    varies="rules",
    pictures=pictures.PICTURES,
    draw=pictures.draw_all,
)
