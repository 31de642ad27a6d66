"""Deterministic relaxations: functions of scores alone, without a law."""

from softdraw.relaxations.sinkhorn import SinkhornPlan, gumbel_sinkhorn, sinkhorn
from softdraw.relaxations.soft_sort import neural_sort, soft_sort
from softdraw.relaxations.soft_topk import soft_topk

__all__ = ["SinkhornPlan", "gumbel_sinkhorn", "neural_sort", "sinkhorn", "soft_sort", "soft_topk"]
