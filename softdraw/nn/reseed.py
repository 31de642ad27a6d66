"""Unused codes get a new start from the batch, the same on every rank."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from softdraw import numerics
from softdraw.arguments import compute_dtype, prepare_rows, row_ids
from softdraw.checks import check_floating, given
from softdraw.keyed import fold_in, noise_at
from softdraw.nn.chooser import check_ending
from softdraw.nn.codebook import Codebook
from softdraw.nn.lookup import product
from softdraw.tensors import is_dtensor


@torch.no_grad()
def reseed(
    codebook: Codebook,
    x: Tensor,
    counts: Tensor,
    *,
    seed: int | Tensor,
    rows: int | Tensor | None = None,
) -> Tensor:
    r"""Give every code that was not used a row of the batch to stand for.

    A row of the batch is drawn for the code by keyed noise, :math:`i_k = \arg\max_i G_{i k}`. The code then becomes
    what the module expects at that row, and its logit looks for rows like it:

    .. math:: e_k = \sum_j p_j(x_{i_k})\, e_j, \qquad W_k = r\, x_{i_k} / \|x_{i_k}\|, \qquad b_k = \bar b

    with r the mean norm of the rows of W of the codes in use, and the mean of their biases. The noise is a function of
    the seed, the row's id and the code. So where torch.distributed is initialised all ranks pick the same rows of the
    whole batch, of which each holds a part, and their copies of the module stay equal without a broadcast. The picked
    rows are summed over the ranks, of which one holds each. Every rank must call it.

    Args:
        codebook: a :class:`Codebook`; its parameters are changed in place. FSDP2's sharded ones too.
        x: the rows ``(..., inputs)``. For a module without a layer: values ``(..., width)``, of which a code
            becomes the part of its group.
        counts: how often each code was used, int64 ``(groups, codes)``, as ``hard`` of
            :class:`softdraw.metrics.CodeUsage`. Ranks add up theirs.
        seed: of the draw; the step belongs in it, ``fold_in(seed, step)``.
        rows: ids of the rows of x in the whole batch, or that of the first. Default: rank r has ``r n`` to
            ``r n + n - 1`` for its n rows.

    Returns:
        bool ``(groups, codes)``, or ``(1, codes)`` of a shared codebook: the codes that were changed, on every rank
        alike. An optimizer's moments of them are those of the old code.

    Gradient:
        None: parameters are written.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> quantise, x = softdraw.nn.Codebook(inputs=2, codes=4, width=3), torch.randn(100, 2)
        >>> usage = torch.tensor([[60, 0, 40, 0]])  # of many batches, as CodeUsage counts it
        >>> softdraw.nn.reseed(quantise, x, usage, seed=0)
        tensor([[False,  True, False,  True]])

    Source:
        The restarts of Dhariwal et al. (2020), "Jukebox", section 3.1, for codes that are drawn from logits.
    """
    unused = _unused(codebook, counts)
    flat, ids = _rows(codebook, x, rows)
    slots = unused.flatten().nonzero().squeeze(-1)  # the same on all ranks
    if not len(slots):
        return unused
    groups, codes = slots // codebook.codes, slots % codebook.codes
    each = slots.expand(len(flat), -1)  # a column of noise for every code
    noise = noise_at(each, seed=fold_in(seed, "reseed"), rows=ids.expand_as(each))
    best, picked = noise.max(0) if len(flat) else (noise.new_full((len(slots),), -torch.inf), slots * 0)
    held = best == _reduced(best.clone(), "MAX")  # by one rank, unless ids occur twice
    found = flat[picked] if len(flat) else flat.new_zeros(len(slots), flat.shape[-1])
    content = torch.cat((found, _expected(codebook, found, groups), torch.ones_like(found[:, :1])), -1)
    content = _reduced(torch.where(held.unsqueeze(-1), content, 0), "SUM")
    content = content[:, :-1] / content[:, -1:]
    _write(codebook.codebook, (groups, codes), content[:, flat.shape[-1] :])
    if codebook.layer is not None:
        _aim(codebook, unused, groups, codes, content[:, : flat.shape[-1]])
    return unused


def _unused(codebook: Codebook, counts: Tensor) -> Tensor:
    """The codes that no rank used, ``(books, codes)``."""
    shape = (codebook.groups, codebook.codes)
    if not isinstance(counts, Tensor) or counts.is_floating_point() or counts.dtype == torch.bool:
        raise TypeError(f"counts must be an int64 tensor, got {given(counts)}: give CodeUsage(...).hard")
    if tuple(counts.shape) != shape:
        raise ValueError(f"counts must have the shape (groups, codes), {shape}, got {tuple(counts.shape)}")
    used = _reduced(counts.clone().to(codebook.codebook.device), "SUM") > 0
    return ~(used.any(0, keepdim=True) if codebook.shared else used)


def _rows(codebook: Codebook, x: Tensor, rows: int | Tensor | None) -> tuple[Tensor, Tensor]:
    """The rows of this rank, ``(n, inputs)``, and their ids ``(n, 1)``."""
    check_floating("x", x)
    check_ending("x", x, (codebook.width if codebook.layer is None else codebook.inputs,))
    flat = x.detach().flatten(0, -2) if x.dim() > 1 else x.detach().unsqueeze(0)
    if rows is None:
        rows = len(flat) * dist.get_rank() if _distributed() else 0
    ids = prepare_rows(rows, x.shape[:-1], x.device) if x.dim() > 1 else None
    flat = flat.to(compute_dtype(flat.dtype))
    return flat, (row_ids(flat.shape[:1], x.device) if ids is None else ids.reshape(-1, 1))


def _expected(codebook: Codebook, x: Tensor, groups: Tensor) -> Tensor:
    """What the module expects at the row of each slot, in the slot's group."""
    layer: Any = codebook.layer
    if layer is None:
        value = x.unflatten(-1, (codebook.groups, -1))
    else:  # not by a call of the module: FSDP2 would leave its parameters whole, and lose what is written into them
        theta = F.linear(x, _whole(layer.weight).to(x.dtype), _whole(layer.bias).to(x.dtype))
        p = numerics.softmax(theta.unflatten(-1, (codebook.groups, codebook.codes)))
        value = product(p, _whole(codebook.codebook).to(x.dtype))
    return value[torch.arange(len(x), device=x.device), groups]


def _aim(codebook: Codebook, unused: Tensor, groups: Tensor, codes: Tensor, x: Tensor) -> None:
    """Point the logits of the slots at their rows."""
    layer: Any = codebook.layer
    kept = ~unused.expand(codebook.groups, codebook.codes)
    kept = torch.where(kept.any(-1, keepdim=True), kept, True)  # of a group without a code in use, all of them
    weight, bias = (_whole(p).view(*kept.shape, -1) for p in (layer.weight, layer.bias))
    norm = weight.norm(dim=-1).mul(kept).sum(-1) / kept.sum(-1)
    offset = bias.squeeze(-1).mul(kept).sum(-1) / kept.sum(-1)
    direction = x / x.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    for group in range(codebook.groups):
        at = torch.full_like(codes, group) if codebook.shared else groups
        own = slice(None) if codebook.shared else groups == group
        place = (at * codebook.codes + codes)[own]
        _write(layer.weight, (place,), direction[own] * norm[group])
        _write(layer.bias, (place,), offset[group].expand(len(place)))


def _write(parameter: Tensor, place: tuple[Tensor, ...], values: Tensor) -> None:
    whole = _whole(parameter).clone()
    whole[place] = values.to(whole.dtype)
    if not is_dtensor(parameter):
        parameter.copy_(whole)
        return
    from torch.distributed.tensor import DTensor, Replicate

    mesh: Any = parameter.device_mesh  # pyright: ignore[reportAttributeAccessIssue]
    everywhere = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    parameter.copy_(everywhere.redistribute(placements=parameter.placements))  # pyright: ignore


def _whole(parameter: Any) -> Tensor:
    return parameter.full_tensor() if is_dtensor(parameter) else parameter.detach()


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _reduced(x: Tensor, how: str) -> Tensor:
    """``x`` with those of all ranks."""
    if _distributed():
        dist.all_reduce(x, getattr(dist.ReduceOp, how))
    return x
