"""One rank's block of the categories: its checks, and the numbers of it that other ranks need."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed
from torch.compiler import is_compiling
from torch.distributed import ProcessGroup
from torch.nn.functional import pad

from softdraw.arguments import COLUMN_MAX, check_col_start, compute_dtype, prepare_mask, row_ids, rows_of, tau_tensor
from softdraw.checks import check_floating, given
from softdraw.kernels import reference
from softdraw.numerics import masked
from softdraw.operators import draws
from softdraw.seeds import seed_tensor
from softdraw.tensors import is_dtensor


class Block(NamedTuple):
    """A block of logits ``(*batch, n)``: columns ``col_start`` to ``col_start + n - 1`` of every row."""

    x: Tensor
    mask: Tensor | None
    col_start: int
    group: ProcessGroup

    def wide(self) -> Tensor:
        """The logits in the dtype of the computation, -inf where forbidden."""
        return masked(self.x.to(compute_dtype(self.x.dtype)), self.mask)


class Key(NamedTuple):
    """What keys the noise: a seed and the ids of rows (None: 0, 1, 2, ...)."""

    seed: Tensor
    rows: Tensor | None


def prepare(block: Tensor, col_start: int, group: Any, mask: Tensor | None) -> Block:
    """The block, after a check of each argument."""
    if is_dtensor(block):
        raise TypeError(
            "block must be this rank's plain tensor, got a DTensor: write block.to_local(), or give the DTensor to the "
            "function of the same name in softdraw, which knows its column"
        )
    check_floating("block", block)
    if block.dim() == 0:
        raise ValueError("block must have a last dimension, its categories, got a 0-d tensor")
    col_start = check_col_start(col_start, block.shape[-1])
    allowed = prepare_mask(mask, block, block.dim() - 1, "block")
    return filled(Block(block, allowed, col_start, _group(group)))


def filled(block: Block) -> Block:
    """The block, or of a rank without categories one that has a forbidden one, in a column that no draw gives."""
    if block.x.shape[-1]:
        return block
    x = pad(block.x, (0, 1))
    return block._replace(x=x, mask=torch.zeros_like(x, dtype=torch.bool), col_start=COLUMN_MAX - 1)


def _group(group: Any) -> ProcessGroup:
    if group is None and not distributed.is_initialized():
        raise ValueError("group is None, which stands for all ranks: call torch.distributed.init_process_group first")
    found = distributed.group.WORLD if group is None else group
    if not isinstance(found, ProcessGroup):
        raise TypeError(
            f"group must be a torch.distributed.ProcessGroup or None (all ranks), got {given(group)}: "
            "of a DeviceMesh write mesh.get_group(dim)"
        )
    return found


def prepare_key(block: Block, seed: Any, rows: Any) -> Key:
    """Seed and row ids, after a check. The seed must be given: one that each rank drew for itself would differ."""
    if seed is None:
        raise TypeError(
            "seed must be given, the same on every rank of the group, got None: with seeds of their own the ranks "
            "would disagree"
        )
    return Key(seed_tensor(seed, block.x.device, block.x.shape[:-1]), rows_of(rows, block.x, seed))


def prepare_tau(tau: float | Tensor, block: Block) -> Tensor:
    """``tau`` as a tensor that broadcasts to the block, in the dtype of the computation."""
    t = tau_tensor(tau, block.x, block.x.dim() - 1)
    if isinstance(tau, Tensor) and not is_compiling():
        reference.checked(t.detach(), compute_dtype(block.x.dtype))
    return t.to(compute_dtype(block.x.dtype))


def scores(block: Block, key: Key | None, stream: int = 0, temperature: float | Tensor | None = None) -> Tensor:
    """Logits plus noise times the temperature, -inf where forbidden: bit for bit the scores of a whole row."""
    x = block.x.to(compute_dtype(block.x.dtype))
    if key is not None:
        ids = row_ids(x.shape[:-1], x.device) if key.rows is None else key.rows
        which = torch.full((), stream, dtype=torch.int64, device=x.device)
        noise = draws.gumbel_noise(key.seed, ids, which, x.shape[-1], block.col_start, x.dtype)
        x = x + (noise if temperature is None else temperature * noise)
    return masked(x, block.mask)


def leader(s: Tensor) -> tuple[Tensor, Tensor]:
    """The column of the highest score in the block, the smallest in a tie, and that score: NaN beside NaN or +inf."""
    top, at = s.detach().max(-1)
    return at, top.masked_fill(top == torch.inf, torch.nan)


def relative(s: Tensor, top: Tensor, tau: float | Tensor = 1.0) -> Tensor:
    """exp((s - top) / tau), where ``top`` has a number a row."""
    base = torch.where(top == -torch.inf, 0, top).unsqueeze(-1)
    return ((s - base) / tau).exp()


def own_total(s: Tensor, top: Tensor, tau: float | Tensor = 1.0) -> Tensor:
    """The sum of ``relative`` over the block, added up in float64."""
    return relative(s, top, tau).sum(-1, dtype=torch.float64).to(s.dtype)


def one_hot(block: Block, index: Tensor, score: Tensor) -> Tensor:
    """The block of the one-hot of a global index, in the dtype of the computation; NaN in a broken row."""
    columns = torch.arange(block.col_start, block.col_start + block.x.shape[-1], device=index.device)
    y = (columns == index.unsqueeze(-1)).to(score.dtype)
    return y.masked_fill(score.isnan().unsqueeze(-1), torch.nan)


def drawn(block: Block, key: Key, samples: int) -> tuple[Tensor, Tensor]:
    """The index in the block and its score, ``(samples, *batch)``."""
    at, score = draws.best(block.x.detach(), key.seed, key.rows, block.mask, samples, block.col_start)
    return at, score
