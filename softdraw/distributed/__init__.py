"""Draws from logits whose categories are split over ranks: the result of the whole row, and no row is gathered."""

from softdraw.distributed.indices import ShardedIndexDraw, draw_index, gumbel_max
from softdraw.distributed.law import entropy, log_prob
from softdraw.distributed.linear import ShardedLinearDraw, linear_draw
from softdraw.distributed.losses import categorical_nll, kl_to_prior, kl_to_uniform
from softdraw.distributed.relaxed import gumbel_softmax
from softdraw.distributed.rules import draw

__all__ = [
    "ShardedIndexDraw",
    "ShardedLinearDraw",
    "categorical_nll",
    "draw",
    "draw_index",
    "entropy",
    "gumbel_max",
    "gumbel_softmax",
    "kl_to_prior",
    "kl_to_uniform",
    "linear_draw",
    "log_prob",
]
