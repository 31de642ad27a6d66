"""Draws of indices for people who sample: from logits at a temperature, from weights, with and without replacement."""

from softdraw.indices.draw_index import IndexDraw, draw_index
from softdraw.indices.gumbel_topk import gumbel_topk
from softdraw.indices.multinomial import multinomial
from softdraw.indices.weighted_sampler import WeightedSampler

__all__ = ["IndexDraw", "WeightedSampler", "draw_index", "gumbel_topk", "multinomial"]
