"""A layer, draws in groups and their codes in one, without the logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from softdraw.arguments import prepare_mask, prepare_rows, row_ids
from softdraw.linear import LinearDraw, linear_draw
from softdraw.rules.pathwise import Pathwise
from softdraw.seeds import seed_for


def drawn_in_groups(
    x: Tensor, layer: nn.Linear, codebook: Tensor, groups: int, rule: Pathwise, mask: Any, keys: tuple
) -> LinearDraw:
    """``linear_draw`` for each group, stacked: value ``(..., groups, V)``, index and log-probability ``(..., groups)``.

    The draws are those of logits ``(..., groups, codes)``. ``keys`` are a seed, a generator and rows.
    """
    seed, generator, rows = keys
    codes, dtype = codebook.shape[1], x.dtype
    logits = torch.empty((), dtype=dtype, device=x.device).expand(*x.shape[:-1], groups, codes)
    mask = prepare_mask(mask, logits, logits.dim() - 1)
    ids = prepare_rows(rows, logits.shape[:-1], x.device, seed)
    ids = row_ids(logits.shape[:-1], x.device) if ids is None else ids
    key = seed_for(logits, seed, generator)
    weight = layer.weight.to(dtype).unflatten(0, (groups, codes))
    bias = None if layer.bias is None else layer.bias.to(dtype).view(groups, codes)
    books = codebook.to(dtype).expand(groups, -1, -1)
    made = [
        linear_draw(
            x,
            weight[g],
            None if bias is None else bias[g],
            books[g],
            rule=rule,
            mask=None if mask is None else mask[..., g, :],
            seed=key[..., g, 0] if key.dim() else key,
            rows=ids[..., g, 0],
        )
        for g in range(groups)
    ]
    value, index, log_prob = zip(*made, strict=True)
    return LinearDraw(torch.stack(value, -2), torch.stack(index, -1), torch.stack(log_prob, -1))
