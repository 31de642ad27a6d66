"""How large the results of passes over rows on the CPU are, for what makes room for them and for compiled graphs."""

from __future__ import annotations

import torch
from torch import Tensor

from softdraw.kernels.pass_reference import Rows

_KEPT = {"entropy": 3, "index_nll": 2, "nll": 3, "kl": 5, "kl_with_slope": 5}  # numbers of a row for its gradient


def common_shape(x: Tensor, other: Tensor) -> torch.Size:
    """(*batch, K): what x and the second operand broadcast to."""
    return x.shape if other.shape == x.shape else torch.broadcast_tensors(x, other)[0].shape


def words(name: str, count: int, dtype: torch.dtype, reduction: str) -> int:
    """float64 numbers that a pass keeps of ``count`` rows: some of each, in the dtype of the computation, and more for
    a reduction."""
    kept = count * _KEPT[name]
    return (kept if dtype is torch.float64 else (kept + 1) // 2) + (0 if reduction == "none" else count + 1)


def saved_words(name: str, rows: Rows, reduction: str, numbers: tuple) -> int:
    """How many float64 numbers a pass keeps for its gradient."""
    x = rows.x
    if name != "usage":
        return words(name, result_shape(name, rows, numbers).numel(), x.dtype, reduction)
    cols = x.shape[-1]
    kept = x.numel() // cols * (2 if x.dtype == torch.float64 else 1)
    return 1 + (x.shape[0] if numbers[1] else 1) * (-cols // 16 * -16) + kept


def result_shape(name: str, rows: Rows, numbers: tuple) -> torch.Size:
    """The shape of a pass that nothing reduces."""
    x, other = rows.x, rows.other
    if name == "usage":
        return x.shape[: int(bool(numbers[1]))]
    return (x.shape if other is None else common_shape(x, other))[:-1]
