"""A linear layer and a draw in one, whose parameters are DTensors split over their categories."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from softdraw.arguments import compute_dtype
from softdraw.distributed import linear
from softdraw.tensors import agreed, is_dtensor, local_part, placed


class Given(NamedTuple):
    """Checked arguments of :func:`softdraw.linear_draw`: those of rows are plain and have all of them."""

    x: Any  # (*batch, D), a DTensor or the same plain tensor on every rank
    weight: Any
    bias: Any
    codebook: Any
    seed: Tensor
    rows: Tensor
    mask: Tensor | None
    tau: Tensor
    rule: str
    dtype: torch.dtype


def linear_draw(given: Given, agree: bool) -> tuple[Tensor | None, Tensor, Tensor]:
    """Value, index and log-probability: DTensors placed as the rows of x, or plain if x is; ``agree`` on a seed that
    each rank drew."""
    x, weight, seed = given.x, given.weight, given.seed
    rows = _rows(given)
    (over,) = (i for i, p in enumerate(weight.placements) if p.is_shard())
    first, mesh = _first(weight, over), weight.device_mesh
    seed = agreed(seed, weight) if agree else seed
    seed, ids, tau = (local_part(t, weight, rows) for t in (seed, given.rows, given.tau))
    columns = [_tensor().Shard(x.dim() - 1) if i == over else p for i, p in enumerate(rows)]
    grads = _summed(rows, over)
    part = linear.Part(
        x.to_local(grad_placements=rows) if is_dtensor(x) else x,
        weight.to_local(grad_placements=grads),
        None if given.bias is None else given.bias.to_local(grad_placements=grads),
        None if given.codebook is None else given.codebook.to_local(grad_placements=grads),
        seed,
        ids,
        local_part(given.mask, weight, columns),
        tau.to(compute_dtype(given.dtype)),
        first,
        given.dtype,
        given.rule,
        mesh.get_group(over),
    )
    made = linear.drawn(part)
    if not is_dtensor(x):
        return made
    shape = x.shape[:-1]
    return tuple(t if t is None else placed(t, x, torch.Size((*shape, *t.shape[len(shape) :])), rows) for t in made)  # pyright: ignore[reportReturnType]


def _first(weight: Any, over: int) -> int:
    """The column of this rank's first category."""
    chunk = -(-weight.shape[0] // weight.device_mesh.size(over))
    return min(weight.device_mesh.get_local_rank(over) * chunk, weight.shape[0])


def _summed(rows: list, over: int) -> list:
    """Where the gradient of a parameter is: each part of the rows has one, and they are added up."""
    kinds = _tensor()
    return [
        kinds.Shard(0) if i == over else kinds.Partial() if p.is_shard() else kinds.Replicate()
        for i, p in enumerate(rows)
    ]


def _rows(given: Given) -> list:
    """The placements of the rows of x, after a check of all placements."""
    x, weight = given.x, given.weight
    mesh, ndim = weight.device_mesh, weight.device_mesh.ndim
    shards = [i for i, p in enumerate(weight.placements) if type(p) is _tensor().Shard and p.dim == 0]
    if len(shards) != 1 or sum(p.is_replicate() for p in weight.placements) != ndim - 1:
        raise ValueError(
            f"weight is a DTensor with placements {tuple(weight.placements)}: one dimension of the mesh may split its "
            "categories, by Shard(0), and the others Replicate() it, so redistribute it first"
        )
    for name, t in {"bias": given.bias, "codebook": given.codebook}.items():
        if t is not None and (t.placements != weight.placements or t.device_mesh != mesh):
            raise ValueError(
                f"{name} is a DTensor with placements {tuple(t.placements)} and weight one with "
                f"{tuple(weight.placements)}: they must be split alike, on one mesh, so redistribute it first"
            )
    if not is_dtensor(x):
        return [_tensor().Replicate()] * ndim
    for i, p in enumerate(x.placements if x.device_mesh == mesh else ()):
        of_batch = i != shards[0] and type(p) is _tensor().Shard and p.dim < x.dim() - 1
        if not (p.is_replicate() or of_batch):
            break
    else:
        if x.device_mesh == mesh:
            return list(x.placements)
    raise ValueError(
        f"x is a DTensor with placements {tuple(x.placements)}: it must be on the mesh of the weight and whole where "
        "that is split over its categories, so redistribute it to Replicate() there"
    )


def _tensor() -> Any:
    import torch.distributed.tensor as module

    return module
