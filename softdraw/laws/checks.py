"""One check for each kind of argument of a law: its settings, values, batch shapes and indices.

A check takes the law, which has ``theta``, ``batch_shape`` and ``event_shape``. Values are read on the CPU alone,
unless the user asks for more by ``validate_args=True``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from softdraw.arguments import compute_dtype, prepare_shape
from softdraw.checks import check_device, check_real, check_tensor, given
from softdraw.tensors import is_dtensor, is_plain

LISTED = 2**32  # numbers that a list of samples may have: 16 GB of float32
_ONE_HOT = "an index becomes a one-hot by torch.nn.functional.one_hot(index, K)"


def check_one_given(logits: Tensor | None, probs: Tensor | None) -> None:
    """Either ``logits`` or ``probs`` is given."""
    if (logits is None) == (probs is None):
        raise TypeError(f"logits or probs must be given, and only one, got {'neither' if logits is None else 'both'}")


def check_parameters(theta: Tensor, validate_args: object) -> None:
    """``validate_args`` is a bool or None, and where it is True no parameter is NaN."""
    if not (validate_args is None or isinstance(validate_args, bool)):
        raise TypeError(f"validate_args must be True, False or None (torch's setting), got {given(validate_args)}")
    if validate_args and is_plain(theta):
        wrong = theta.to(compute_dtype(theta.dtype)).isnan()
        if bool(wrong.any()):
            raise ValueError(
                f"logits must not be NaN where validate_args=True, got NaN at {wrong.nonzero()[0].tolist()}: "
                "without it a NaN row gives NaN"
            )


def check_value(name: str, value: Tensor, law: Any) -> None:
    """``value`` is a real tensor on the law's device, of its event shape, and broadcasts with its batch."""
    check_real(name, value)
    if value.dim() or value.is_meta:  # a number of its own is at home on every device
        check_device(name, value, law.theta.device)
    events = len(law.event_shape)
    if events and value.shape[-events:] != law.event_shape:
        way = f": {getattr(law, 'value_help', _ONE_HOT)}" if name == "value" else ""
        raise ValueError(
            f"{name} must end in the event shape {tuple(law.event_shape)}, got shape {tuple(value.shape)}{way}"
        )
    batch = value.shape[: value.dim() - events]
    if not _broadcast_together(batch, law.batch_shape):
        raise ValueError(
            f"{name} of shape {tuple(value.shape)} does not broadcast with the batch {tuple(law.batch_shape)} of the "
            "law: each dimension, counted from the last, must be equal or 1 in one of the two"
        )


def check_sample(value: Tensor, sample_shape: tuple[int, ...], law: Any) -> tuple[int, ...]:
    """``value`` is a sample of the law, ``(*sample_shape, *batch, *event)``; returns its sample shape."""
    check_real("value", value)
    check_device("value", value, law.theta.device)
    own = law.batch_shape + law.event_shape
    extra = value.dim() - len(own)
    if extra < 0 or value.shape[extra:] != own or (sample_shape and value.shape[:extra] != sample_shape):
        raise ValueError(
            f"value must have the shape (*sample_shape, *batch, *event), which ends in {tuple(own)} here"
            f"{f' after {tuple(sample_shape)}' if sample_shape else ''}, got {tuple(value.shape)}"
        )
    return tuple(value.shape[:extra])


def check_support(value: Tensor, law: Any) -> None:
    """``value`` is in the support wherever the law has one: a row that is NaN or allows nothing takes anything."""
    if not _looks_at(value, law):
        return
    legal = law.contains(value)
    if bool(legal.all()):
        return
    top = law.scores().detach().reshape(*law.batch_shape, -1).amax(-1)
    wrong = ~legal & top.isfinite()
    if bool(wrong.any()):
        first = wrong.nonzero()[0].tolist()
        got = value.expand(*wrong.shape, *law.event_shape)[tuple(first)]
        raise ValueError(
            f"value must be within the support of {type(law).__name__} ({law.support}), got {_few(got)} at {first}; "
            "validate_args=False leaves values unchecked"
        )


def check_allowed(value: Tensor, law: Any) -> None:
    """A ``value`` has nothing in a forbidden category, because the law never draws that.

    Where the value has sample dimensions, only ``validate_args=True`` asks for this, because ``enumerate_support``
    lists forbidden samples too.
    """
    enumerated = value.dim() > len(law.batch_shape) + len(law.event_shape)
    if not _looks_at(value, law) or (enumerated and "_validate_args" not in vars(law)):
        return
    wrong = law.forbids(value.detach().to(compute_dtype(law.theta.dtype)))
    if bool(wrong.any()):
        first = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"value must be a sample that the law can draw, got {_few(value[tuple(first)])} at {first}, which the mask "
            "or a logit of -inf forbids: leave it out, or allow that category; validate_args=False leaves values "
            "unchecked"
        )


def prepare_batch(batch_shape: Sequence[int], law: Any) -> tuple[int, ...]:
    """The batch shape that the law is expanded to."""
    shape, own = prepare_shape("batch_shape", batch_shape), law.batch_shape
    tail = shape[len(shape) - len(own) :]
    if len(shape) < len(own) or any(a != b and a != 1 for a, b in zip(own, tail, strict=True)):
        raise ValueError(
            f"batch_shape must end in the law's own {tuple(own)}, in which a 1 may be any size, got {shape}: "
            "to keep a part of the batch, index the law"
        )
    return shape


def check_states(index: Tensor, states: int) -> None:
    """``index`` numbers states: an integer tensor from 0 to ``states`` - 1."""
    check_tensor("index", index)
    if index.dtype == torch.bool or index.is_floating_point() or index.is_complex():
        raise TypeError(f"index must be a tensor of integers, got {given(index)}: write index.long()")
    if is_plain(index) and index.is_cpu and index.numel() and not 0 <= int(index.min()) <= int(index.max()) < states:
        raise IndexError(
            f"index must be from 0 to {states - 1}, got values from {int(index.min())} to {int(index.max())}"
        )


def check_plain(theta: Tensor, law: type, what: str) -> None:
    """``theta`` is a plain tensor, for numbers that are made in operations which no DTensor knows."""
    if is_dtensor(theta):
        raise TypeError(
            f"logits must be a plain tensor for {what} of {law.__name__}, got a DTensor: make the law of "
            "logits.to_local(), with rows= the ids of this rank's rows, or of logits.full_tensor()"
        )


def check_listed(law: Any, each: int) -> None:
    """Not more numbers than memory has room for are in a list of all samples of ``law``, of ``each`` numbers."""
    if law.log_states + math.log(max(each, 1)) > math.log(LISTED) + 1e-9:
        states = law.log_states / math.log(10)
        raise ValueError(
            f"enumerate_support of {law} would list about 10^{states:.0f} samples of {each} numbers, and may list "
            f"2^{LISTED.bit_length() - 1} numbers in all: draw some by law.sample((1000,)), or take parts by "
            "law.state(index)"
        )


def batch_index(index: Any, law: Any) -> tuple:
    """``law[index]`` as the index of its parameters, which takes no dimension of their events."""
    parts = tuple(_as_tensor(i) for i in (index if isinstance(index, tuple) else (index,)))
    events = len(law.event_shape)
    whole = (*parts, *[slice(None)] * events) if any(i is Ellipsis for i in parts) else parts
    taken = sum(_dimensions(i) for i in parts if i is not None and i is not Ellipsis)
    if taken > len(law.batch_shape):
        raise IndexError(
            f"index has {taken} dimensions and the batch {tuple(law.batch_shape)} of the law "
            f"{len(law.batch_shape)}: a law is indexed by its batch, not by its categories"
        )
    try:
        law.theta[whole]
    except (IndexError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise IndexError(
            f"index must fit the batch {tuple(law.batch_shape)} of the law, got {given(index)}: {reason}"
        ) from None
    return whole


def _as_tensor(part: Any) -> Any:
    """A list or an array of an index as a tensor, whose dtype says how many dimensions it takes."""
    if isinstance(part, Tensor) or not (isinstance(part, list) or hasattr(part, "__array__")):
        return part
    try:
        nothing = isinstance(part, list) and not part
        return torch.as_tensor(part, dtype=torch.int64 if nothing else None, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise IndexError(f"index must hold integers or bools, got {given(part)}") from None


def _dimensions(part: Any) -> int:
    """How many dimensions a part of an index takes: a mask takes all of its own."""
    return part.dim() if isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8) else 1


def _looks_at(value: Tensor, law: Any) -> bool:
    """Whether values are checked: on the CPU where torch's setting has it, elsewhere where the law's own does."""
    asked = "_validate_args" in vars(law)
    return bool(law._validate_args) and is_plain(value) and (asked or value.is_cpu)


def _broadcast_together(a: Sequence[int], b: Sequence[int]) -> bool:
    return all(m == n or m == 1 or n == 1 for m, n in zip(reversed(a), reversed(b), strict=False))


def _few(x: Tensor) -> str:
    """The values of a short tensor, or the first ones of a long one."""
    return str(x.tolist()) if x.numel() <= 8 else f"[{', '.join(str(v) for v in x.flatten()[:8].tolist())}, ...]"
