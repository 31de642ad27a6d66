"""Seeds that are made from seeds."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

from softdraw import noise
from softdraw.checks import INTEGERS, check_device, check_tensor, given
from softdraw.operators import keys
from softdraw.overrides import overridable
from softdraw.private_torch import constant_of_graphs
from softdraw.seeds import seed_tensor
from softdraw.tensors import is_dtensor


@overridable
def fold_in(seed: int | Tensor, *ids: int | str | Tensor) -> Tensor:
    r"""Make the seed of a use of its own from a seed and the ids that name the use.

    .. math:: s_0 = \text{seed}, \qquad s_{i+1} = w_0 + 2^{32} w_1, \qquad
              w = \mathrm{Philox}(\text{counter} = (\text{id}_i, 0, 2^{32} - 1), \; \text{key} = s_i)

    Two uses under one seed need two keys: layers of a model, steps, members of a group, draft and verification. Seeds
    under different ids are unrelated, those under equal ids are equal, and the order of the ids matters.

    Args:
        seed: an int of 64 bits, or int64 seeds of any shape.
        ids: folded in one after the other. An int counts modulo 2^64. A string stands for the first 8 bytes of its
            BLAKE2b hash. A tensor of integers gives one seed for each of its elements, and broadcasts with the others.

    Returns:
        int64, 0-d unless the seed or an id has dimensions, on their device. Every ``seed=`` takes it; seeds with
        dimensions are seeds of samples (see :func:`gumbel_softmax`). No value is read back from a device.

    Gradient:
        None: seeds have no gradient.

    Raises:
        TypeError: the seed or an id is none of the above. ValueError: the seed has more than 64 bits.

    Example:
        >>> step = softdraw.fold_in(0, "training", 17)
        >>> softdraw.gumbel_max(torch.zeros(5), seed=softdraw.fold_in(step, "encoder.0"))
        tensor(3)
        >>> softdraw.fold_in(0, "group", torch.tensor([7, 8]))  # one for each sample
        tensor([ 1231988474692787125, -5137404053432279959])

    Source:
        Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3" (Philox4x32-10).
    """
    for name, x in (("seed", seed), *(("ids", x) for x in ids)):
        if is_dtensor(x):
            raise TypeError(
                f"{name} must be plain tensors, got a DTensor: write {name}.full_tensor(), the same on all ranks"
            )
    device = _common_device(seed, *ids)
    key = _seeds(seed, device)
    for position, id in enumerate(ids):
        key = keys.fold_in(key, _id(id, device, position))
    return key


def _seeds(seed: Any, device: torch.device) -> Tensor:
    if not isinstance(seed, Tensor):
        return seed_tensor(seed, device)
    check_tensor("seed", seed)
    if seed.dtype != torch.int64:
        raise TypeError(f"seed must be an int or an int64 tensor, got a tensor of {seed.dtype}: write seed.long()")
    return seed if seed.device == device or seed.dim() else seed.to(device)


def _id(id: Any, device: torch.device, position: int) -> Tensor:
    """An id as an int64 tensor."""
    if isinstance(id, Tensor):
        check_tensor("ids", id)
        if id.dtype not in INTEGERS:
            raise TypeError(
                f"ids must be ints, strings or tensors of integers, got a tensor of {id.dtype} as number {position}"
            )
        if id.dim():
            check_device("ids", id, device, "seed")
        return id.long() if id.device == device else id.to(device, torch.int64)
    return torch.full((), _number(id, position), dtype=torch.int64, device=device)


def _number(id: Any, position: int) -> Any:
    if isinstance(id, str):
        return _name(id)
    try:
        if isinstance(id, bool):
            raise TypeError
        number: Any = id if isinstance(id, (int, torch.SymInt)) else operator.index(id)
    except TypeError:
        raise TypeError(
            f"ids must be ints, strings or tensors of integers, got {given(id)} as number {position}: "
            "write a name or a number"
        ) from None
    return number if -(2**63) <= number < 2**63 else noise.signed(number)


@constant_of_graphs
def _name(name: str) -> int:
    return noise.id_of(name)


def _common_device(*given: Any) -> torch.device:
    """The device of the first tensor with dimensions, else of the first that is not on the CPU, else the CPU."""
    elsewhere = torch.device("cpu")
    for x in given:  # a loop, for torch.compile of torch 2.6 stops at next() with a default
        if isinstance(x, Tensor) and x.dim():
            return x.device
        if isinstance(x, Tensor) and elsewhere.type == "cpu":
            elsewhere = x.device
    return elsewhere
