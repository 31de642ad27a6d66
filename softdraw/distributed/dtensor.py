"""DTensor logits that are split over their categories: each rank gives its block, the result is a DTensor.

A dense result is placed as the logits. What has one number a row is replicated over the ranks of a row, and placed as
the rows are over the others.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from softdraw.arguments import KernelRule, Tau, compute_dtype, tau_tensor
from softdraw.distributed import indices, law, losses, relaxed, rules
from softdraw.distributed.blocks import Block, Key, filled, one_hot
from softdraw.seeds import agreed, prepare_seed
from softdraw.tensors import behind, local_part, local_row_ids, placed


class Split(NamedTuple):
    """DTensor logits ``x`` (categories last) and this rank's block of them."""

    x: Any
    block: Block
    rows: list  # placements of what has one number a row

    def of_rows(self, t: Any) -> Any:
        """The local part of a tensor with a number a row, or one for all."""
        return local_part(t, self.x, self.rows)

    def dense(self, y: Tensor) -> Tensor:
        """A block, of one draw or ``(samples, ...)``, as a DTensor placed as the logits."""
        return self._placed(y[..., : self.x.to_local().shape[-1]], self.x.shape, self.x.placements)

    def per_row(self, y: Tensor) -> Tensor:
        """Numbers ``(*batch)`` or ``(samples, *batch)`` as a DTensor."""
        return self._placed(y, self.x.shape[:-1], self.rows)

    def _placed(self, y: Tensor, shape: torch.Size, placements: Any) -> Tensor:
        more = y.dim() - len(shape)
        return placed(y, self.x, torch.Size((*y.shape[:more], *shape)), behind(placements, more))


def split(x: Any, mask: Tensor | None = None) -> Split:
    """The block of logits that are split over their categories by one dimension of the mesh."""
    mesh, last = x.device_mesh, x.dim() - 1
    over = [i for i, p in enumerate(x.placements) if p.is_shard(last)]
    _check(x, over)
    whole = x.shape[-1]
    chunk = -(-whole // mesh.size(over[0]))
    start = min(mesh.get_local_rank(over[0]) * chunk, whole)
    own, allowed, group = x.to_local(), local_part(mask, x, x.placements), mesh.get_group(over[0])
    rows = [_replicate() if i in over else p for i, p in enumerate(x.placements)]
    return Split(x, filled(Block(own, allowed, start, group)), rows)


def _check(x: Any, over: list[int]) -> None:
    """One dimension of the mesh splits the categories, and the others place whole blocks of rows."""
    for i, p in enumerate(x.placements):
        if p.is_partial():
            raise ValueError(
                f"logits is a DTensor with placements {tuple(x.placements)}, not yet summed over ranks: redistribute "
                "it first, to Shard or Replicate(), which reduces it"
            )
        if len(over) > 1 or not (p.is_replicate() or type(p).__name__ == "Shard"):
            raise ValueError(
                f"logits is a DTensor with placements {tuple(x.placements)}: one dimension of the mesh may split the "
                f"categories, by Shard({x.dim() - 1}), so redistribute it first (dimension {i} of the mesh is "
                f"{x.device_mesh.size(i)} ranks)"
            )


def _replicate() -> Any:
    from torch.distributed.tensor import Replicate

    return Replicate()


def key_of(here: Split, seed: Any, generator: Any, ids: Tensor | None) -> Key:
    """Seed and ids of the local rows; a seed that is drawn here is the same on all ranks."""
    x = here.x
    key = prepare_seed(seed, generator, x.device, x.shape[:-1])
    return local_key(here, agreed(key, x) if seed is None else key, ids)


def local_key(here: Split, seed: Tensor, ids: Tensor | None) -> Key:
    """The same of a seed as operations take it."""
    return Key(here.of_rows(seed), local_row_ids(here.x) if ids is None else here.of_rows(ids))


def gumbel_softmax(
    x: Tensor, tau: Tau, hard: bool, noise: bool, seed: Any, generator: Any, ids: Tensor | None, mask: Tensor | None
) -> Tensor:
    """The draw as a DTensor, from arguments that ``softdraw.gumbel_softmax`` has checked."""
    here = split(x, mask)
    t = here.of_rows(tau) if isinstance(tau, Tensor) else tau_tensor(tau, here.block.x, x.dim() - 1)
    key = key_of(here, seed, generator, ids) if noise else None
    return here.dense(relaxed.relaxed(here.block, key, t.to(compute_dtype(x.dtype)), hard))


def gumbel_max(x: Tensor, samples: int, seed: Any, generator: Any, ids: Tensor | None, mask: Tensor | None) -> Tensor:
    """The indices ``(samples, *batch)`` as a DTensor."""
    here = split(x, mask)
    return here.per_row(indices.highest(here.block, key_of(here, seed, generator, ids), samples)[0])


def one_hots(x: Tensor, samples: int | None, seed: Tensor, rows: Tensor | None, mask: Tensor | None) -> Tensor:
    """Exact draws ``(samples, *batch, C)``, or one, without a gradient, as a DTensor."""
    here = split(x.detach(), mask)
    index, score = indices.highest(here.block, local_key(here, seed, rows), 1 if samples is None else samples)
    y = one_hot(here.block, index, score).to(x.dtype)
    return here.dense(y.squeeze(0) if samples is None else y)


def draw_index(
    x: Tensor, temperature: Tau, samples: int, seed: Any, generator: Any, ids: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The index and its log-probability, ``(samples, *batch)``, and the entropy, ``batch``, as DTensors."""
    here = split(x, mask)
    plain = type(temperature) is float and temperature == 1
    made = indices.drawn_index(
        here.block, key_of(here, seed, generator, ids), None if plain else here.of_rows(temperature), samples
    )
    return here.per_row(made[0]), here.per_row(made[1]), here.per_row(made[2])


def draw(kernel: KernelRule, x: Tensor, seed: Tensor, rows: Tensor | None, mask: Tensor | None) -> Tensor:
    """The draw with the gradient of a rule, as a DTensor; the rule's tau is a number, or one a row of the whole."""
    here = split(x, mask)
    if isinstance(kernel.tau, Tensor) and kernel.tau.dim():
        whole = tau_tensor(kernel.tau, x, x.dim() - 1)
        kernel = kernel._replace(tau=here.of_rows(whole))
    return here.dense(rules.drawn_with(kernel, here.block, local_key(here, seed, rows)))


def entropy(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The entropy of each row, ``batch``."""
    here = split(x, mask)
    return here.per_row(law.entropies(here.block))


def nll(x: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """The cross-entropy of each row with indices, ``batch``, or with distributions of the shape of the logits."""
    here = split(x, mask)
    if target.dim() == x.dim() - 1:
        return here.per_row(-law.log_probs_of(here.block, here.of_rows(target.long())))
    t = local_part(target.expand(x.shape), x)
    return here.per_row(losses.nll_of_distribution(here.block, losses.filled_with(t, 0)))


def kl_to_prior(x: Tensor, prior: Tensor) -> Tensor:
    """The divergence of each row from a prior of logits that broadcast to ``x``, ``batch``."""
    here = split(x)
    y = local_part(prior.expand(x.shape), x)
    return here.per_row(losses.kl_of_blocks(here.block, losses.filled_with(y, -math.inf)))
