"""The processes of a run: one, or those that torchrun started. Every rank holds all data and takes its slice."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from softdraw.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's place among ``count``."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and prints."""
        return self.rank == 0

    def slice(self, x: Tensor) -> Tensor:
        """This rank's part of ``x``: contiguous, sizes differ by one at most, and may be 0."""
        return x.tensor_split(self.count)[self.rank]

    def sum(self, x: Tensor) -> Tensor:
        """``x`` added up over the ranks."""
        if self.count > 1:
            dist.all_reduce(x)
        return x

    def broadcast(self, x: T) -> T:
        """The first rank's ``x`` on every rank."""
        box: list[Any] = [x]
        if self.count > 1:
            dist.broadcast_object_list(box)
        return box[0]

    def on_first(self, action: Callable[..., T], *args: Any) -> T:
        """``action(*args)`` on the first rank alone; every rank gets what it returns, or its InputError."""
        result, message = _outcome(action, *args) if self.first else (None, None)
        result, message = self.broadcast((result, message))
        if message is not None:
            raise InputError(message)
        return result  # pyright: ignore[reportReturnType]

    def on_all(self, action: Callable[..., T], *args: Any) -> T:
        """``action(*args)`` on every rank; an InputError of one of them ends all, with the same message."""
        result, message = _outcome(action, *args)
        messages: list[Any] = [message]
        if self.count > 1:
            messages = [None] * self.count
            dist.all_gather_object(messages, message)
        for message in messages:
            if message is not None:
                raise InputError(message)
        return result  # pyright: ignore[reportReturnType]

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.count > 1:
            dist.barrier()


def _outcome(action: Callable[..., T], *args: Any) -> tuple[T | None, str | None]:
    """What the action returns, or the message of its InputError."""
    try:
        return action(*args), None
    except InputError as error:
        return None, str(error)


@contextmanager
def started() -> Iterator[Ranks]:
    """The ranks that torchrun's environment describes, connected for as long as the block runs."""
    size = os.environ.get("WORLD_SIZE", "1")
    if not size.isdecimal() or int(size) < 1 or (int(size) > 1 and "RANK" not in os.environ):
        raise InputError(f"WORLD_SIZE={size} is set, but not by torchrun: unset it, or start with torchrun")
    count = int(size)
    if count == 1:
        yield Ranks()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Ranks(dist.get_rank(), count)
    finally:
        dist.destroy_process_group()
