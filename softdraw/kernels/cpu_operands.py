"""Operands of the draws on the CPU as csrc/call.h has them: one tau or one for each row, and strides."""

from __future__ import annotations

import math
import struct

import torch
from torch import Tensor

from softdraw.arguments import Fields, Tau, compute_dtype
from softdraw.kernels import reference

_LIMITS = {dtype: (torch.finfo(dtype).tiny, torch.finfo(dtype).max) for dtype in (torch.float32, torch.float64)}


def at_temperature(draw: Fields) -> Fields:
    """The draw with a temperature that is a number or has one element a row."""
    logits, tau, *rest = draw
    if isinstance(tau, Tensor):
        tau = reference.checked_temperature(tau, compute_dtype(logits.dtype))
        tau = tau.item() if tau.numel() == 1 else tau
    return logits, tau, *rest  # pyright: ignore[reportReturnType]


def number_or_rows(tau: Tau, dtype: torch.dtype) -> tuple[float, Tensor | None]:
    """One tau as a number, or one for every row as a tensor in the compute dtype; illegal values are errors."""
    if not isinstance(tau, Tensor):
        return tau, None
    if tau.numel() != 1:
        return 1.0, reference.checked(tau, dtype)
    number = tau.item()
    if not 0 < number < math.inf:
        reference.checked(tau, dtype)
    low, high = _LIMITS[dtype]
    return min(max(number, low), high), None


def layout(shape: torch.Size, operands: tuple[Tensor | None, ...]) -> bytes | None:
    """Sizes of the batch and the strides of every operand over it, as csrc/call.h has them; None if rows simply follow
    one another in all of them, and seed and tau are the same for all."""
    *dense, seed, rows, taus = operands
    if (
        taus is None
        and (seed is None or seed.numel() == 1)
        and (rows is None or (rows.is_contiguous() and rows.shape[:-1] == shape[:-1]))
        and all(t is None or (t.is_contiguous() and t.shape == shape) for t in dense)
    ):
        return None
    batch, n = shape[:-1], len(shape)
    strides = [(0,) * n if t is None else t.expand(shape).stride() for t in dense]
    strides += [(0,) * n if t is None else t.expand(*batch, 1).stride() for t in (seed, rows, taus)]
    numbers = (n - 1, *batch, *(step for operand in strides for step in operand))
    return struct.pack(f"={len(numbers)}q", *numbers)
