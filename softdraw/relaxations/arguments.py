"""Checks that the relaxations share."""

from __future__ import annotations

from torch import Tensor

from softdraw.arguments import Tau, broadcasts, prepare_tau
from softdraw.checks import check_device, check_floating
from softdraw.kernels.reference import checked
from softdraw.tensors import is_plain, matched


def check_scores(scores: Tensor, dims: int) -> None:
    """``scores`` is floating point, with at least ``dims`` dimensions, of which the last ones are not empty."""
    check_floating("scores", scores)
    wanted = "(..., n)" if dims == 1 else "(..., n, n)"
    if scores.dim() < dims or 0 in scores.shape[scores.dim() - dims :]:
        raise ValueError(f"scores must have the shape {wanted} with n at least 1, got shape {tuple(scores.shape)}")
    if dims == 2 and scores.shape[-1] != scores.shape[-2]:
        raise ValueError(f"scores must be square matrices, (..., n, n), got shape {tuple(scores.shape)}")


def number_or_checked(tau: float | Tensor, x: Tensor, dims: int = 1) -> Tau:
    """``tau`` as a number, or as a tensor in the dtype of the scores ``x`` with one for each row, or each matrix where
    ``dims`` is 2. Its values are checked where they can be read."""
    if not isinstance(tau, Tensor):
        return prepare_tau(tau, x, x.dim() - 1)
    check_floating("tau", tau)
    if tau.dim() or tau.is_meta:
        check_device("tau", tau, x.device, "scores")
    t, each = matched("tau", tau.to(x.device), x, "scores"), (*x.shape[: x.dim() - dims], *[1] * dims)
    if t.dim() > x.dim() or (t.numel() != 1 and not broadcasts(t.shape, each)):
        raise ValueError(
            f"tau of shape {tuple(t.shape)} does not fit scores of shape {tuple(x.shape)}: it may be one number, or "
            f"one for each {'row' if dims == 1 else 'matrix'}, of shape {each}"
        )
    t = t.reshape(()) if t.numel() == 1 else t.expand(each)
    return checked(t, x.dtype) if is_plain(t) or not t.is_cpu else t.to(x.dtype)
