"""What kind of tensor a call got: a plain one, whose values may be read, or a DTensor.

Every rank draws the rows of a DTensor that it holds, keyed by their ids in the whole tensor. Noise is a function of
(seed, row, column) alone, so rows may lie anywhere. The draw of a DTensor equals that of its full tensor on one process
and needs no communication. The categories of a row must be on one rank. Beside a DTensor, a plain tensor is the whole
one, the same on every rank.

``torch.distributed.tensor`` is imported where a DTensor has been seen, never before.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from softdraw.private_torch import PLAIN, is_plain

__all__ = [
    "PLAIN",
    "agreed",
    "behind",
    "check_first_column",
    "check_whole_rows",
    "is_dtensor",
    "is_plain",
    "local_part",
    "local_row_ids",
    "matched",
    "noise_of_rows",
    "on_local_rows",
    "placed",
    "replicating",
    "split_over_categories",
]


def is_dtensor(x: object) -> bool:
    """Whether ``x`` is a DTensor; if nobody has imported their module there are none."""
    if type(x) in PLAIN:
        return False
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def split_over_categories(logits: object) -> bool:
    """Whether ``logits``, categories last, are a DTensor of which no rank has a whole row."""
    return is_dtensor(logits) and any(p.is_shard(_of(logits).dim() - 1) for p in _of(logits).placements)


def check_first_column(col_start: int) -> None:
    """A DTensor has its columns from 0 on: it is a whole tensor."""
    if col_start:
        raise ValueError(
            f"col_start must be 0 where logits is a DTensor split over its categories, got {col_start}: the DTensor "
            "knows the columns of its shards, and softdraw.distributed takes a plain block with its own"
        )


def matched(name: str, x: Tensor, logits: Tensor, what: str = "logits") -> Tensor:
    """The argument ``x``, as a DTensor where the logits are one: its gradient is then summed over the ranks."""
    if is_dtensor(x) is is_dtensor(logits):
        return x
    if is_dtensor(x):
        raise TypeError(
            f"{name} is a DTensor and {what} a plain tensor: distribute the {what} too, or write {name}.full_tensor()"
        )
    mesh = _of(logits).device_mesh
    return _tensor().DTensor.from_local(x, mesh, _replicated(mesh), run_check=False)


def check_whole_rows(logits: Tensor) -> None:
    """Every row of ``logits`` (a DTensor, categories last) is whole on one rank."""
    placements = _of(logits).placements
    for placement in placements:
        if placement.is_replicate() or (type(placement) is _tensor().Shard and placement.dim != logits.dim() - 1):
            continue
        shown = f"logits is a DTensor with placements {tuple(placements)}"
        if placement.is_partial():
            raise ValueError(
                f"{shown}, not yet summed over ranks: redistribute it first, to Shard or Replicate(), which reduces it"
            )
        if placement.is_shard(logits.dim() - 1):
            raise ValueError(
                f"{shown}, split over its categories, and a draw needs whole rows: redistribute it first, "
                "to a shard of another dimension or Replicate()"
            )
        raise ValueError(f"{shown}: a draw takes Shard and Replicate, so redistribute it first")


def agreed(seed: Tensor, logits: Tensor) -> Tensor:
    """A seed that every rank drew for itself, as the first rank of the mesh drew it: replicas must draw alike."""
    mesh = _of(logits).device_mesh
    for dim, size in enumerate(mesh.shape):
        if size > 1:
            group = mesh.get_group(dim)
            torch.distributed.broadcast(seed, torch.distributed.get_global_rank(group, 0), group)
    return seed


def on_local_rows(call: Callable, logits: Tensor, rest: tuple, index: bool) -> Tensor:
    """An operation on the local rows of ``logits`` (categories last), its result as a DTensor of the same placements.

    ``rest`` is what the operation takes after its logits: tau (unless ``index``), seed, rows, mask and numbers. After
    the batch, an index may have further dimensions.
    """
    check_whole_rows(logits)
    x = _of(logits)
    at = 1 if index else 2
    rows = local_row_ids(x) if rest[at] is None else local_part(rest[at], x)
    y = call(x.to_local(), *(local_part(t, x) for t in rest[:at]), rows, *(local_part(t, x) for t in rest[at + 1 :]))
    if index:
        return _stacked(y, x, torch.Size((*x.shape[:-1], *y.shape[x.dim() :])))
    return placed(y, x, x.shape, x.placements, x.stride())


def noise_of_rows(make: Callable[[Tensor, Tensor, Tensor], Tensor], like: Tensor, rows: Tensor, seed: Tensor) -> Tensor:
    """Blocks of noise ``(blocks, *like.shape)`` for a DTensor ``(samples, *batch, C)``: each rank makes that of its
    rows, ``make(local part of like, local rows, local seeds)``, from ``rows``, the ids of all, ``(1, *batch, 1)``, and
    one seed or all of them, ``(*batch, 1)``."""
    x = _of(like)
    seeds = seed.unsqueeze(0) if seed.dim() else seed
    return _stacked(make(x.to_local(), local_part(rows, x), local_part(seeds, x)), x, x.shape)


def _stacked(y: Tensor, x: Any, rest: torch.Size) -> Tensor:
    """Local parts ``y`` as a DTensor ``(n, *rest)``, placed as ``x`` behind the new dimension."""
    shape = torch.Size((y.shape[0], *rest))
    return placed(y, x, shape, behind(x.placements, 1))


def behind(placements: Sequence, more: int) -> list:
    """The placements of a tensor that has so many new dimensions in front."""
    return [_tensor().Shard(p.dim + more) if more and p.is_shard() else p for p in placements]


def placed(y: Tensor, like: Any, shape: torch.Size, placements: Sequence, stride: tuple[int, ...] = ()) -> Tensor:
    """Local parts ``y`` as a DTensor of that shape on the mesh of ``like``."""
    stride = stride or tuple(math.prod(shape[d + 1 :]) for d in range(len(shape)))
    return _tensor().DTensor.from_local(y, like.device_mesh, placements, run_check=False, shape=shape, stride=stride)


def replicating(function: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """``function``, composed of torch's operations, on DTensors: every other tensor in it is the same on all ranks."""
    from torch.distributed.tensor.experimental import implicit_replication

    _register_log_sigmoid()
    given = (*args, *kwargs.values())
    logits = next(x for x in given if is_dtensor(x))

    def whole(x: Any) -> Any:
        return matched("", x, logits) if isinstance(x, Tensor) else x

    with implicit_replication():
        return function(*map(whole, args), **{name: whole(x) for name, x in kwargs.items()})


def _tensor() -> Any:
    import torch.distributed.tensor as module

    return module


def _of(x: object) -> Any:
    """A DTensor as type checkers may see it here: its module is not imported."""
    return x


def _replicated(mesh: Any) -> list:
    return [_tensor().Replicate()] * mesh.ndim


def local_row_ids(x: Any) -> Tensor:
    """The flattened index over the batch for every local row, ``(*local batch, 1)``."""
    ids = torch.zeros((), dtype=torch.int64, device=x.device)
    for dim, size in enumerate(x.shape[:-1]):
        along = [_tensor().Shard(0) if p.is_shard(dim) else _tensor().Replicate() for p in x.placements]
        ids = ids.unsqueeze(-1) * size + _part(torch.arange(size, device=x.device), x.device_mesh, along)
    return ids.unsqueeze(-1)


def local_part(t: Any, x: Any, placements: Sequence | None = None) -> Any:
    """What belongs to the local rows of ``x``: of a tensor with its dimensions that part, of one number the number.
    ``placements`` are those of ``x``, or say where the parts are of what has one number a row."""
    if not isinstance(t, Tensor):
        return t
    placements = x.placements if placements is None else placements
    assert placements is not None
    if t.dim() > 0:
        if not is_dtensor(t):
            return _part(t, x.device_mesh, placements)
        return _of(t).redistribute(x.device_mesh, placements).to_local()
    if not is_dtensor(t):
        return t
    # Every rank's rows have a part in the gradient of one tau for all.
    parts = [_tensor().Partial() if p.is_shard() else p for p in placements]
    return _of(t).redistribute(x.device_mesh, _replicated(x.device_mesh)).to_local(grad_placements=parts)


def _part(t: Tensor, mesh: Any, placements: Sequence) -> Tensor:
    """This rank's part of a plain tensor: a shard is a chunk, and there may be fewer chunks than ranks."""
    for size, rank, placement in zip(mesh.shape, mesh.get_coordinate(), placements, strict=True):
        if placement.is_shard():
            chunks = t.chunk(size, placement.dim)
            t = chunks[rank] if rank < len(chunks) else t.narrow(placement.dim, 0, 0)
    return t


@functools.cache
def _register_log_sigmoid() -> None:
    """torch knows how to shard every operation of the losses but this one, which works on elements alone."""
    from torch.distributed.tensor.experimental import register_sharding

    @register_sharding(torch.ops.aten.log_sigmoid_backward.default)
    def _(grad: Any, x: Any, buffer: Any) -> list:
        def alike(placement: Any) -> tuple[list, list]:
            # The buffer is empty on accelerators.
            return [placement], [placement, placement, placement if buffer.shape == x.shape else replicate]

        replicate = _tensor().Replicate()
        return [alike(replicate), *(alike(_tensor().Shard(dim)) for dim in range(len(x.shape)))]
