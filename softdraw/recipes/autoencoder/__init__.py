"""A categorical variational autoencoder on images: the recipe of ``softdraw train`` and ``softdraw compare``."""

from softdraw.recipes.autoencoder.recipe import AUTOENCODER

__all__ = ["AUTOENCODER"]
