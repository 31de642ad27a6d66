"""Checks that the relaxations share."""

from __future__ import annotations

from torch import Tensor

from softdraw.arguments import Tau, prepare_tau
from softdraw.checks import check_floating
from softdraw.kernels.reference import checked
from softdraw.tensors import is_plain


def check_scores(scores: Tensor, dims: int) -> None:
    """``scores`` is floating point, with at least ``dims`` dimensions, of which the last ones are not empty."""
    check_floating("scores", scores)
    wanted = "(..., n)" if dims == 1 else "(..., n, n)"
    if scores.dim() < dims or 0 in scores.shape[scores.dim() - dims :]:
        raise ValueError(f"scores must have the shape {wanted} with n at least 1, got shape {tuple(scores.shape)}")
    if dims == 2 and scores.shape[-1] != scores.shape[-2]:
        raise ValueError(f"scores must be square matrices, (..., n, n), got shape {tuple(scores.shape)}")


def number_or_checked(tau: float | Tensor, x: Tensor) -> Tau:
    """``tau`` as a number, or as a tensor in the dtype of ``x`` that broadcasts to it. Its values are checked where
    they can be read."""
    t = prepare_tau(tau, x, x.dim() - 1)
    if not isinstance(t, Tensor):
        return t
    return checked(t, x.dtype) if is_plain(t) or not t.is_cpu else t.to(x.dtype)
