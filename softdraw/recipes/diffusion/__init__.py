"""A masked-diffusion language model on text: the recipe of ``softdraw train diffusion``."""

from softdraw.recipes.diffusion.recipe import DIFFUSION

__all__ = ["DIFFUSION"]
