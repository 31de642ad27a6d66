"""Noise of other laws than Gumbel's, from the same uniforms: a pure function of (seed, row, column)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from softdraw.arguments import row_ids
from softdraw.operators import draws


def normal(like: Tensor, seed: Tensor, rows: Tensor | None) -> Tensor:
    """Standard normal noise ``(*batch, columns)`` in the dtype of ``like``, of that shape.

    It is the normal quantile of the uniform u behind Gumbel noise g = -log(-log(1 - u)), which the kernels make:
    sqrt(2) erfinv(2 u - 1), with u = 1 - exp(-exp(-g)). torch has fast code for erfinv and none for ndtri. 2 u - 1 ends
    one step before -1 and 1, so in float32 no value is beyond 5.42.
    """
    ids = row_ids(like.shape[:-1], like.device) if rows is None else rows
    g = draws.gumbel_noise(seed, ids, ids.new_zeros(()), like.shape[-1], 0, like.dtype)
    most = 1 - torch.finfo(like.dtype).eps / 2
    u = g.neg_().exp_().neg_().expm1_()  # -u, in place: a copy a step would take longer than the steps
    return u.mul_(-2).sub_(1).clamp_(-most, most).erfinv_().mul_(math.sqrt(2))


def logistic(like: Tensor, seed: Tensor, rows: Tensor | None) -> Tensor:
    """Logistic noise of the shape ``batch`` of ``like``: the difference of the two Gumbels that draw a bit, so it is
    above -theta where ``Bernoulli(theta)`` draws 1.

    It is the log-ratio of a relaxed draw from two equal logits, which costs a sixth of the two Gumbels: softmax keeps
    the smaller of its values to full precision, and that one decides.
    """
    with torch.no_grad():
        y = draws.gumbel_softmax_soft(like.new_zeros(*like.shape, 2), 1.0, seed, rows, None, 0).log()
        return y[..., 1] - y[..., 0]
