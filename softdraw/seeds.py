"""Where the seed of a draw comes from: given, or drawn from a generator; and the memory of seeds that nobody keeps."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from softdraw.arguments import ROW_MAX, prepare_rows
from softdraw.checks import check_tensor
from softdraw.tensors import PLAIN, agreed, check_whole_rows, is_dtensor, matched, split_over_categories

SEED_MIN, SEED_MAX = -(2**63), 2**64 - 1

_spare: list[Tensor] = []  # memory for seeds that nobody holds beyond the call they are drawn for


def spare_seed() -> Tensor:
    """A seed of torch's default generator, as ``prepare_seed`` draws it but without a new tensor. Whoever takes it
    gives it back to ``keep_spare`` after use. A draw that is made before that, by a signal handler for instance, takes
    other memory."""
    try:
        memory = _spare.pop()
    except IndexError:
        with torch.inference_mode(mode=False):
            memory = torch.empty((), dtype=torch.int64, device="cpu")
    return memory.random_(SEED_MIN, ROW_MAX)


keep_spare: Callable[[Any], None] = _spare.append


def prepare_seed(
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    device: torch.device,
    batch: tuple[int, ...] = (),
) -> Tensor:
    """The 64-bit seed as an int64 tensor: ``seed`` itself, or one drawn from ``generator`` or the default one. It is
    0-d, or of the shape ``(*batch, 1)`` where samples have seeds of their own."""
    if seed is None:
        if generator is not None:
            _check_generator(generator, device)
        # generator=None is said, for without it inductor would draw from a generator of its own.
        return torch.randint(SEED_MIN, ROW_MAX, (), device=device, generator=generator)
    if generator is not None:
        raise ValueError("seed and generator were both given: the draw can come from one of them only; leave one out")
    return seed_tensor(seed, device, batch)


def seed_for(
    x: Tensor, seed: int | Tensor | None, generator: torch.Generator | None, batch: tuple[int, ...] | None = None
) -> Tensor:
    """``prepare_seed`` for a draw from ``x``, by default one with the categories last; one that is drawn for a DTensor
    is the same on all of its ranks."""
    batch = x.shape[:-1] if batch is None else batch
    if type(x) in PLAIN or not is_dtensor(x):
        return prepare_seed(seed, generator, x.device, batch)
    if not split_over_categories(x):  # some draws serve it; the others refused it before
        check_whole_rows(x)
    key = prepare_seed(seed, generator, x.device, batch)
    return agreed(key, x) if seed is None else key


def keyed(
    x: Tensor, batch: torch.Size, seed: int | Tensor | None, generator: torch.Generator | None, rows: int | Tensor
) -> tuple[Tensor, Tensor | None]:
    """Seed and row ids of a draw for ``batch``, from parameters ``x``, as operations take them."""
    if type(rows) is int and not rows and not isinstance(seed, Tensor):
        return seed_for(x, seed, generator, batch), None  # the common case first: a small draw takes microseconds
    rows = matched("rows", rows, x) if isinstance(rows, Tensor) else rows
    ids = prepare_rows(rows, batch, x.device, seed)
    return seed_for(x, seed, generator, batch), ids  # the seed last: a refused call draws none


def seed_tensor(seed: int | Tensor, device: torch.device, batch: tuple[int, ...] = ()) -> Tensor:
    """A given seed as a 0-d int64 tensor on ``device``, or seeds of samples as ``(*batch, 1)``."""
    if isinstance(seed, Tensor):
        known = seed.dim()
        if seed.dtype != torch.int64 or (known and seed.shape != batch[:known]):
            several = f", or one for each sample of a batch of shape {tuple(batch)}" if batch else ""
            raise TypeError(
                f"seed must be an int or a 0-d int64 tensor{several}, got a tensor of {seed.dtype} and shape "
                f"{tuple(seed.shape)}: write seed.long().reshape(())"
                + (", or give seeds the batch's shape or its first dimensions" if batch else "")
            )
        check_tensor("seed", seed)
        if seed.is_meta and device.type != "meta":
            raise ValueError(f"seed is on meta, where it has no value, and the draw on {device}: write seed=1, an int")
        seed = seed.to(device)
        return seed.view(*seed.shape, *[1] * (len(batch) - known + 1)).expand(*batch, 1) if known else seed
    return torch.full((), _signed(seed), dtype=torch.int64, device=device)


def _signed(seed: int) -> int:
    """A seed from -2^63 to 2^64 - 1 as the int64 that has its bits."""
    try:
        if isinstance(seed, bool):
            raise TypeError
        if not isinstance(seed, int):  # torch.compile would make a constant of an int that passes operator.index
            seed = operator.index(seed)
    except TypeError:
        raise TypeError(f"seed must be an int or a 0-d int64 tensor, got {type(seed).__name__}") from None
    if not SEED_MIN <= seed <= SEED_MAX:
        raise ValueError(f"seed must fit in 64 bits (-2**63 to 2**64 - 1), got {seed}: write seed % 2**64")
    if seed <= ROW_MAX:
        return seed
    if torch.compiler.is_compiling():
        raise ValueError(
            "seed must be below 2**63 in a compiled graph, whose ints have 64 bits with a sign: "
            "write torch.tensor(seed - 2**64) outside of it, which has the bits of this seed"
        )
    return seed - 2**64


def _check_generator(generator: torch.Generator, device: torch.device) -> None:
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}: an int goes to seed=")
    if generator.device.type != device.type:
        raise ValueError(
            f"generator is on {generator.device} and the draw on {device}: write torch.Generator('{device.type}')"
        )
