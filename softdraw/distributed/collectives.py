"""The two collectives of a sharded draw: one all-gather of a few numbers a row, and one all-reduce of a few.

Numbers travel in words of 32 bits, or of 64 beside float64 logits. An index is an integer of the same size: columns
are below 2^32, so no bit of it is lost, which a float would lose from 2^24 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup

_WORDS = {torch.float32: torch.int32, torch.float64: torch.int64}


def gather(numbers: Sequence[Tensor], group: ProcessGroup) -> list[Tensor]:
    """``numbers`` of every rank, each ``(ranks, *batch)``, by one all-gather.

    Floats of one dtype go with their gradient, and indices (int64, below 2^32) beside them. What is computed from
    the result is the same on all ranks, and so is its gradient: a rank takes its own part of it and sends nothing.
    """
    floats = [x for x in numbers if x.is_floating_point()]
    indices = [x for x in numbers if not x.is_floating_point()]
    out = _Gather.apply(*floats, *indices, len(floats), group)
    made = iter(out[: len(floats)]), iter(out[len(floats) :])
    return [next(made[not x.is_floating_point()]) for x in numbers]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        *numbers, floats, group = inputs
        ctx.rank, ctx.floats = distributed.get_rank(group), floats
        word = _WORDS[numbers[0].dtype]
        words = [x.contiguous().view(word) if i < floats else x.to(word) for i, x in enumerate(numbers)]
        packed = torch.cat([x.flatten() for x in words])
        parts = [torch.empty_like(packed) for _ in range(distributed.get_world_size(group))]
        distributed.all_gather(parts, packed, group=group)
        fields = torch.stack(parts).split([x.numel() for x in numbers], dim=1)
        every = [field.reshape(len(parts), *x.shape) for field, x in zip(fields, numbers, strict=True)]
        out = [x.view(numbers[0].dtype) if i < floats else _as_index(x) for i, x in enumerate(every)]
        ctx.mark_non_differentiable(*out[floats:])
        return tuple(out)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple:
        own = [g if g is None else g[ctx.rank] for g in grads[: ctx.floats]]
        return *own, *[None] * (len(grads) - ctx.floats + 2)


def _as_index(words: Tensor) -> Tensor:
    """A word as the index below 2^32 that it was; of -1, which marks a row without a draw, as 2^32 - 1."""
    return words.to(torch.int64) & 0xFFFFFFFF


def total(numbers: Sequence[Tensor], group: ProcessGroup) -> list[Tensor]:
    """The sum over the ranks of each of ``numbers``, by one all-reduce."""
    sums = torch.stack(tuple(numbers))
    distributed.all_reduce(sums, group=group)
    return list(sums.unbind())
