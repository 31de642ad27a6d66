"""Numbers of a law for each row: its temperature, and what :mod:`truncation` bounds it by.

x + T G has the argmax of x / T + G, and is finite for every T, 0 included.
"""

from __future__ import annotations

import math

from torch import Tensor

from softdraw.arguments import Tau, compute_dtype, number_a_row
from softdraw.checks import number
from softdraw.kernels.reference import temperature_error, temperature_max


def prepare_temperature(temperature: float | Tensor, logits: Tensor, dim: int) -> Tau:
    """``temperature`` as a float, or as a tensor (categories last) that broadcasts to the logits, checked by the
    kernel."""
    if isinstance(temperature, Tensor):
        return number_a_row("temperature", by_row(temperature, logits, dim), logits, dim).detach()
    t = float(number("temperature", temperature, "a float or a floating-point tensor"))
    if not 0 <= t < math.inf:
        raise temperature_error(t)
    return min(t, temperature_max(compute_dtype(logits.dtype)))


def by_row(x: Tensor, logits: Tensor, dim: int) -> Tensor:
    """A tensor of the batch's shape, with the dimension of the categories added; any other as it is."""
    if x.layout != logits.layout or x.is_nested or x.dim() != logits.dim() - 1 or not x.dim():
        return x
    return x.unsqueeze(dim) if x.shape == (*logits.shape[:dim], *logits.shape[dim + 1 :]) else x
