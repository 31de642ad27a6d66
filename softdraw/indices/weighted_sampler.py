"""A sampler for data loaders that takes samples by weight, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from softdraw.checks import check_bool, count, given, integer
from softdraw.indices.multinomial import multinomial
from softdraw.keyed import fold_in
from softdraw.seeds import seed_tensor


class WeightedSampler(Sampler[int]):
    r"""Indices of a data set by weight, the same for any number of workers, ranks and restarts.

    .. math:: P(i) = w_i / \sum_j w_j

    One order of ``num_samples`` indices belongs to each (seed, epoch). Of ``ranks`` processes, process ``rank`` gets
    every ``ranks``-th of them, from its own rank on, as ``torch.utils.data.DistributedSampler`` divides. It takes the
    place of ``torch.utils.data.WeightedRandomSampler``, whose order comes from a generator's hidden state.

    Args:
        weights: w >= 0 of every sample, ``(N,)``, or a sequence of numbers. A weight of 0 is never drawn.
        num_samples: how many indices an epoch has, over all ranks.
        replacement: whether a sample may come again. Without it, ``num_samples`` samples must have a weight above 0.
        seed: int or 0-d int64 tensor.
        rank, ranks: this process, and how many there are. Default: those of ``torch.distributed`` where it is
            initialised, else 0 of 1.
        drop_last: what the ranks do with a remainder: drop it, or (False) begin again with the first indices of the
            order, so that all ranks have equally many.

    Returns:
        A ``Sampler``: ``len(sampler)`` indices, for this rank. Call ``set_epoch`` before every epoch.

    Gradient:
        None: an index has no gradient.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> sampler = softdraw.WeightedSampler([1.0, 0.0, 3.0], num_samples=8, seed=0)
        >>> list(sampler)
        [2, 2, 2, 0, 2, 2, 2, 0]
        >>> sampler.set_epoch(1)
        >>> list(sampler)
        [2, 2, 0, 0, 2, 2, 2, 0]

    Source:
        ``torch.utils.data.WeightedRandomSampler`` and ``DistributedSampler`` for the interface.
    """

    def __init__(
        self,
        weights: Any,
        num_samples: int,
        replacement: bool = True,
        *,
        seed: int | Tensor,
        rank: int | None = None,
        ranks: int | None = None,
        drop_last: bool = False,
    ) -> None:
        self.weights = _prepare(weights)
        self.num_samples = count("num_samples", num_samples, 1, "how many indices an epoch has")
        check_bool("replacement", replacement)
        check_bool("drop_last", drop_last)
        self.replacement, self.drop_last = replacement, drop_last
        self._seed = seed_tensor(seed, torch.device("cpu"))
        self.rank, self.ranks = _place(rank, ranks)
        possible = int((self.weights > 0).sum())
        if possible < (1 if replacement else self.num_samples):
            raise ValueError(
                f"weights must be above 0 for {1 if replacement else self.num_samples} samples at least, got "
                f"{possible}: give a smaller num_samples, or replacement=True"
            )
        self.epoch = self._start = self._taken = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of this epoch, from its beginning; or from where ``load_state_dict`` left it."""
        epoch = count("epoch", epoch, 0, "which pass over the data this is")
        if epoch != self.epoch:
            self.epoch, self._start, self._taken = epoch, 0, 0

    def __len__(self) -> int:
        whole = self.num_samples // self.ranks
        return whole if self.drop_last or whole * self.ranks == self.num_samples else whole + 1

    def __iter__(self) -> Iterator[int]:
        order = self._order()
        self._taken, self._start = self._start, 0
        for at in range(self._taken, len(self)):
            self._taken = at + 1
            yield order[(at * self.ranks + self.rank) % len(order)]

    def state_dict(self, taken: int | None = None) -> dict[str, int]:
        """The epoch, and how many indices of its order all ranks together have taken.

        ``taken``: how many this rank has used, in place of how many it has given out. A ``DataLoader`` with workers
        takes indices ahead of the batches it hands out: give batches times batch size.
        """
        given_out = self._taken if taken is None else count("taken", taken, 0, "how many indices this rank has used")
        return {"epoch": self.epoch, "taken": given_out * self.ranks}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where ``state_dict`` was taken, also with another number of ranks that divides what was taken."""
        taken = count("taken", state["taken"], 0, "how many indices all ranks have taken")
        if taken % self.ranks:
            raise ValueError(
                f"taken must be a multiple of the {self.ranks} ranks, got {taken}: go on with as many ranks as before, "
                "or save where they have taken such a number"
            )
        self.set_epoch(state["epoch"])
        self._start = self._taken = taken // self.ranks

    def _order(self) -> list[int]:
        key = fold_in(self._seed, self.epoch)
        return multinomial(self.weights, self.num_samples, self.replacement, seed=key).tolist()


def _prepare(weights: Any) -> Tensor:
    w = weights if isinstance(weights, Tensor) else _numbers(weights)
    if w.dim() != 1 or not len(w):
        raise ValueError(f"weights must have the shape (N,), a weight for each sample, got {tuple(w.shape)}")
    multinomial(w, 0, seed=0)  # checks them
    return w.detach().cpu().double()


def _numbers(weights: Any) -> Tensor:
    try:
        return torch.as_tensor(weights, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"weights must be a tensor or a sequence of numbers, got {given(weights)}") from None


def _place(rank: int | None, ranks: int | None) -> tuple[int, int]:
    """This rank and the number of ranks, as given or as torch.distributed has them."""
    if (rank is None) != (ranks is None):
        raise ValueError(f"rank and ranks go together, got rank={rank!r} and ranks={ranks!r}: give both, or neither")
    if rank is None or ranks is None:
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if together else (0, 1)
    ranks = count("ranks", ranks, 1, "how many processes share the order")
    rank = integer("rank", rank, "which of the processes this is")
    if not 0 <= rank < ranks:
        raise ValueError(f"rank must be from 0 to {ranks - 1}, got {rank}: there are {ranks} ranks")
    return rank, ranks
