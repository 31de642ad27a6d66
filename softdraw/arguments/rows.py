"""The ids of rows and the index of the first column: what keys the noise besides the seed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from softdraw.checks import INTEGERS, check_room, check_tensor, integer
from softdraw.tensors import is_plain, matched

ROW_MAX = 2**63 - 1
COLUMN_MAX = 2**32


def check_col_start(col_start: int, cols: int) -> int:
    """``col_start`` as an int that leaves room for ``cols`` columns below 2^32, or an error says so."""
    col_start = integer("col_start", col_start, "the index of the first column")
    if not 0 <= col_start <= COLUMN_MAX - cols:
        raise ValueError(f"col_start must be from 0 to 2**32 less the {cols} columns of the logits, got {col_start}")
    return col_start


def rows_of(rows: int | Tensor, x: Tensor, seed: object = None) -> Tensor | None:
    """``prepare_rows`` for the rows of ``x``, categories last; quick for the default, 0, and one seed."""
    if type(rows) is int and rows == 0 and not per_sample(seed):
        return None
    rows = matched("rows", rows, x) if isinstance(rows, Tensor) else rows
    return prepare_rows(rows, x.shape[:-1], x.device, seed)


def prepare_rows(rows: int | Tensor, batch: torch.Size, device: torch.device, seed: object = None) -> Tensor | None:
    """The id of every row as int64 of shape ``(*batch, 1)``, or None for 0, 1, 2, ... in the order of the batch.

    Under each of several seeds, those of samples, the count begins anew: a sample draws what it draws alone.
    """
    if isinstance(rows, Tensor):
        return _prepare_row_ids(rows, batch, device)
    rows = integer("rows", rows, "the id of the first row, or an int64 tensor, an id for every row")
    several = per_sample(seed)
    if rows == 0 and not several:
        return None
    counted = batch[seed.dim() :] if isinstance(seed, Tensor) else batch
    if not 0 <= rows <= ROW_MAX - counted.numel():
        raise ValueError(f"rows must be from 0 to 2**63 - 1 less the number of rows, got {rows}")
    ids = row_ids(counted, device) + rows
    return ids.expand(*batch, 1) if several else ids


def per_sample(seed: object) -> bool:
    """Whether there are several seeds, one for each of the batch's first dimensions."""
    return isinstance(seed, Tensor) and seed.dim() > 0


def row_ids(batch: torch.Size | tuple[int, ...], device: torch.device) -> Tensor:
    """The default ids: the flattened index over the batch, int64 of shape ``(*batch, 1)``."""
    return torch.arange(math.prod(batch), device=device).view(*batch, 1)


def _prepare_row_ids(rows: Tensor, batch: torch.Size, device: torch.device) -> Tensor:
    if rows.dtype not in INTEGERS:
        raise TypeError(f"rows must be an int or an int64 tensor, got a tensor of {rows.dtype}: write rows.long()")
    check_tensor("rows", rows)
    if rows.device != device:
        raise ValueError(f"rows is on {rows.device} and the draw on {device}: write rows.to('{device}')")
    known, inner = rows.dim(), batch[rows.dim() :]
    # No broadcasting: it would give several rows one id, hence the same noise.
    if rows.shape != batch[:known] or (known == 0 and len(batch) > 0):
        raise ValueError(
            f"rows of shape {tuple(rows.shape)} does not give an id to every row of a batch of shape {tuple(batch)}: "
            "give it that shape, or the first dimensions of it (ids of samples), or an int for the first id"
        )
    ids = rows.long().view(*rows.shape, *[1] * (len(inner) + 1))
    if not inner:
        return ids
    if is_plain(ids) and ids.is_cpu:
        check_room(ids, inner.numel())
    return ids * inner.numel() + matched("", row_ids(inner, device), ids)
