"""What every public call does with its arguments: check them, say the way out, bring them to one form.

The canonical form is what the kernels take: categories in the last dimension, ``tau`` a number or a tensor, ``seed``
and ``rows`` tensors (each broadcasts to ``(*batch, 1)``), a mask that has the shape of the logits. Values on an
accelerator are never read here: a check of values belongs inside the operation, where it can be asynchronous and is
not traced.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from softdraw.distributed import matched

ROW_MAX = 2**63 - 1
COLUMN_MAX = 2**32
INTEGERS = (int, torch.SymInt)  # a traced size is an int
NUMBERS = (*INTEGERS, float, torch.SymFloat)

Tau = Tensor | float
_TAU_LIMITS = [(torch.finfo(dtype).tiny, torch.finfo(dtype).max) for dtype in (torch.float32, torch.float64)]
_ORDINARY = {torch.float32, torch.float64, torch.bfloat16, torch.float16}
_UNSIGNED = getattr(torch, "float8_e8m0fnu", None)  # since torch 2.7


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of noise, softmax and reductions: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_floating(name: str, x: object) -> None:
    """``x`` is a floating-point tensor, or a TypeError says how to make it one."""
    if not isinstance(x, Tensor):
        way = "write torch.tensor(...) first"
        if isinstance(x, torch.fx.Proxy):
            way = "torch.fx traces no object that holds one; wrap the function that makes it in torch.fx.wrap"
        raise TypeError(f"{name} must be a floating-point tensor, got {type(x).__name__}: {way}")
    if not x.is_floating_point():
        way = "take its real part or its magnitude" if x.is_complex() else f"write {name}.float()"
        raise TypeError(f"{name} must be floating point, got a tensor of {x.dtype}: {way}")
    if x.dtype == _UNSIGNED:
        raise TypeError(f"{name} must have a sign, which {x.dtype} has not: write {name}.float()")


def check_logits(logits: Tensor, dim: int) -> int:
    """``logits`` is floating point and has categories in ``dim``; returns ``dim`` counted from the front."""
    if not isinstance(logits, Tensor) or logits.dtype not in _ORDINARY:
        check_floating("logits", logits)
    n = logits.dim()
    if n == 0:
        raise ValueError("logits must have a dimension of categories, got a 0-d tensor: give it the shape (..., K)")
    if not -n <= dim < n:
        raise IndexError(
            f"dim must be from {-n} to {n - 1} for logits of shape {tuple(logits.shape)}, got {dim}: "
            "it names the dimension of the categories"
        )
    if logits.shape[dim] == 0:  # not numel(): a batch whose size is known at run time only is none of this check's
        raise ValueError(f"logits must have at least one category, got shape {tuple(logits.shape)} with dim={dim}")
    return dim % n


def prepare_shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """A shape that was given as the argument ``name``."""
    if isinstance(shape, int) or not all(isinstance(n, INTEGERS) and n >= 0 for n in shape):
        raise TypeError(f"{name} must be a sequence of sizes >= 0, got {shape!r}: write ({shape},) for one dimension")
    return tuple(shape)


def last(x: Tensor, dim: int) -> Tensor:
    """``x`` with dimension ``dim`` (>= 0) moved to the end: ``x`` itself where it is there already."""
    return x if dim == x.dim() - 1 else x.movedim(dim, -1)


def prepare_mask(mask: Tensor | None, logits: Tensor, dim: int) -> Tensor | None:
    """The mask at the shape of the logits (a view), categories last."""
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = f"a tensor of {mask.dtype}" if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask must be a bool tensor (True = allowed), got {got}: write mask.bool() or mask > 0")
    if mask.device != logits.device:
        raise ValueError(f"mask is on {mask.device} and logits on {logits.device}: write mask.to(logits.device)")
    if not _broadcasts(mask.shape, logits.shape):
        raise ValueError(
            f"mask of shape {tuple(mask.shape)} does not broadcast to logits of shape {tuple(logits.shape)}: "
            "each of its dimensions, counted from the last, must be 1 or the size of the logits'"
        )
    return last(matched("mask", mask, logits).expand(logits.shape), dim)


def prepare_tau(tau: float | Tensor, logits: Tensor, dim: int) -> Tau:
    """``tau`` as a float, or as a tensor (categories last) that broadcasts to the logits, checked by the kernel."""
    if type(tau) is float and _TAU_LIMITS[0][0] <= tau <= _TAU_LIMITS[0][1]:
        return tau  # the common case, before all others: a small draw takes microseconds
    if isinstance(tau, Tensor):
        return _prepare_tau_tensor(tau, logits, dim)
    if isinstance(tau, bool) or not isinstance(tau, NUMBERS):
        raise TypeError(f"tau must be a float or a floating-point tensor, got {type(tau).__name__}")
    if not 0 < tau < math.inf:
        raise ValueError(f"tau must be positive and finite, got {tau}: it relaxes the draw; small is close to one-hot")
    low, high = _TAU_LIMITS[logits.dtype == torch.float64]
    return min(max(float(tau), low), high)


def tau_tensor(tau: float | Tensor, logits: Tensor, dim: int) -> Tensor:
    """``prepare_tau`` as a tensor in any case, in the compute dtype if it was a number."""
    t = prepare_tau(tau, logits, dim)
    return t if isinstance(t, Tensor) else logits.new_full((), t, dtype=compute_dtype(logits.dtype))


def _prepare_tau_tensor(tau: Tensor, logits: Tensor, dim: int) -> Tensor:
    check_floating("tau", tau)
    if tau.device != logits.device:
        if tau.dim() > 0:
            raise ValueError(f"tau is on {tau.device} and logits on {logits.device}: write tau.to(logits.device)")
        tau = tau.to(logits.device)
    tau = matched("tau", tau, logits)
    if tau.numel() == 1 and tau.dim() <= logits.dim():
        return tau.reshape(())
    per_row = [1 if i == dim else n for i, n in enumerate(logits.shape)]
    if not _broadcasts(tau.shape, per_row):
        raise ValueError(
            f"tau of shape {tuple(tau.shape)} does not fit logits of shape {tuple(logits.shape)} with categories in "
            f"dim={dim}: it may be one number, or one for each row, of shape {tuple(per_row)} "
            f"(write tau.unsqueeze({dim}) if it lacks that dimension)"
        )
    return last(tau.expand(per_row), dim)


def check_col_start(col_start: int, cols: int) -> None:
    """``col_start`` leaves room for ``cols`` columns below 2^32, or an error says so."""
    if isinstance(col_start, bool) or not isinstance(col_start, INTEGERS):
        raise TypeError(f"col_start must be an int, the index of the first column, got {col_start!r}")
    if not 0 <= col_start <= COLUMN_MAX - cols:
        raise ValueError(f"col_start must be from 0 to 2**32 less the {cols} columns there are, got {col_start}")


def rows_of(rows: int | Tensor, x: Tensor) -> Tensor | None:
    """``prepare_rows`` for the rows of ``x``, categories last; the default takes no time."""
    if type(rows) is int and rows == 0:
        return None
    rows = matched("rows", rows, x) if isinstance(rows, Tensor) else rows
    return prepare_rows(rows, x.shape[:-1], x.device)


def prepare_rows(rows: int | Tensor, batch: torch.Size, device: torch.device) -> Tensor | None:
    """The id of every row as int64 of shape ``(*batch, 1)``, or None for 0, 1, 2, ... in the order of the batch."""
    if isinstance(rows, Tensor):
        return _prepare_row_ids(rows, batch, device)
    if isinstance(rows, bool) or not isinstance(rows, INTEGERS):
        raise TypeError(f"rows must be an int (the id of the first row) or an int64 tensor, got {type(rows).__name__}")
    if rows == 0:
        return None
    if not 0 <= rows <= ROW_MAX - batch.numel():
        raise ValueError(f"rows must be from 0 to 2**63 - 1 less the number of rows, got {rows}")
    return row_ids(batch, device) + rows


def row_ids(batch: torch.Size | tuple[int, ...], device: torch.device) -> Tensor:
    """The default ids: the flattened index over the batch, int64 of shape ``(*batch, 1)``."""
    return torch.arange(math.prod(batch), device=device).view(*batch, 1)


def _prepare_row_ids(rows: Tensor, batch: torch.Size, device: torch.device) -> Tensor:
    if rows.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        raise TypeError(f"rows must be an int or an int64 tensor, got a tensor of {rows.dtype}: write rows.long()")
    if rows.device != device:
        raise ValueError(f"rows is on {rows.device} and the draw on {device}: write rows.to('{device}')")
    given, inner = rows.dim(), batch[rows.dim() :]
    # No broadcasting: it would give several rows one id, hence the same noise.
    if rows.shape != batch[:given] or (given == 0 and len(batch) > 0):
        raise ValueError(
            f"rows of shape {tuple(rows.shape)} does not give an id to every row of a batch of shape {tuple(batch)}: "
            "give it that shape, or the first dimensions of it (ids of samples), or an int for the first id"
        )
    ids = rows.long().view(*rows.shape, *[1] * (len(inner) + 1))
    return ids * inner.numel() + matched("", row_ids(inner, device), ids) if inner else ids


def _broadcasts(shape: torch.Size | list[int], target: torch.Size | list[int]) -> bool:
    if len(shape) > len(target):
        return False
    return all(a in (1, b) for a, b in zip(reversed(shape), reversed(target), strict=False))


def per_row(tau: float | Tensor, logits: Tensor) -> Tensor:
    """``tau`` as a tensor that broadcasts to ``logits`` (categories last), in its dtype."""
    return tau_tensor(tau, logits, logits.dim() - 1).to(logits.dtype)


def check_tau(rule: object, tau: object, name: str = "tau", learned: bool = False) -> None:
    """``tau`` is a positive number or a floating tensor; one that wants a gradient must be able to get it."""
    owner = type(rule).__name__
    if isinstance(tau, Tensor):
        if not tau.is_floating_point():
            raise TypeError(f"{name} of {owner} must be floating point, got a tensor of {tau.dtype}: write tau.float()")
        if tau.requires_grad and not learned:
            raise ValueError(
                f"{name} of {owner} requires a gradient, and this rule gives it none: write tau.detach(), "
                "or learn it through GumbelSoftmax or softdraw.gumbel_softmax"
            )
    elif isinstance(tau, bool) or not isinstance(tau, (int, float)):
        raise TypeError(f"{name} of {owner} must be a float or a floating-point tensor, got {type(tau).__name__}")
    elif not 0 < tau < math.inf:
        raise ValueError(f"{name} of {owner} must be positive and finite, got {tau}")


def check_count(rule: object, name: str, value: object, least: int = 1) -> None:
    """``value`` is an int of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} of {type(rule).__name__} must be an int, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} of {type(rule).__name__} must be at least {least}, got {value}")
