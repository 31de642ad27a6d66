"""Our draws in transformers: a callback for its Trainer, its Gumbel quantiser, keyed noise for ``generate``."""

from softdraw.integrations.decoding import KeyedNoise
from softdraw.integrations.quantiser import GumbelVectorQuantizer
from softdraw.integrations.trainer import DrawCallback

__all__ = ["DrawCallback", "GumbelVectorQuantizer", "KeyedNoise"]
