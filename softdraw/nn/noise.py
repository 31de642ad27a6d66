"""Noise of other laws than Gumbel's, from the same uniforms: a pure function of (seed, row, column)."""

from __future__ import annotations

import torch
from torch import Tensor

from softdraw.arguments import row_ids
from softdraw.operators import draws, keys


def normal(like: Tensor, seed: Tensor, rows: Tensor | None) -> Tensor:
    """Standard normal noise ``(*batch, columns)`` in the dtype of ``like``, of that shape."""
    ids, column = _placed(like, rows), torch.arange(like.shape[-1], device=like.device)
    u = keys.noise_at(seed, ids, column.expand(like.shape), ids.new_zeros(()), like.dtype, True)
    return torch.special.ndtri(u)


def logistic(like: Tensor, seed: Tensor, rows: Tensor | None) -> Tensor:
    """Logistic noise of the shape ``batch`` of ``like``: the difference of the two Gumbels that draw a bit, so it is
    above -theta where ``Bernoulli(theta)`` draws 1."""
    ids = _placed(like.unsqueeze(-1), rows)
    g = draws.gumbel_noise(seed, ids, ids.new_zeros(()), 2, 0, like.dtype)
    return g[..., 1] - g[..., 0]


def _placed(like: Tensor, rows: Tensor | None) -> Tensor:
    return row_ids(like.shape[:-1], like.device) if rows is None else rows
