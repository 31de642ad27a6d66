"""The passes over bits on the CPU, fused: this file turns operands into what csrc/bits.h takes.

Operands have one shape. Logits may be of any dtype that the kernels know. Every other operand is "wide", of the dtype
of the computation, save the gradient that arrives at single elements of a law, which is stored as the logits are.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from softdraw.kernels.native import BITS, STORAGE, address, function

_pack, _threads, _empty, _empty_like = BITS.pack, torch.get_num_threads, torch.empty, torch.empty_like
CODES = {getattr(torch, name): code for name, code in STORAGE.items()}
_WIDE = {dtype: torch.float64 if dtype == torch.float64 else torch.float32 for dtype in CODES}
_CPU = torch.device("cpu")  # the kernels write to the CPU, whatever the default device is
# A number to take after: empty_like takes less time than empty.
ANY_NUMBER, UNIT_INTERVAL, ZERO_OR_ONE = range(3)  # what a target may be


class Bits(NamedTuple):
    """What a pass reads."""

    x: Tensor  # logits
    other: Tensor | None = None  # targets, values, or other logits
    weight: Tensor | None = None
    pos_weight: Tensor | None = None
    mask: Tensor | None = None  # True = counted
    number: float = 1.0  # pos_weight where it is one for all; the share that a row should have
    reduction: int = 0
    law: bool = False  # csrc/bits.h says what these two are
    allowed: int = 0
    rows: int = 1


def nll(bits: Bits) -> tuple[Tensor, Tensor | None, bool]:
    """The loss, what backward needs, and whether every target was allowed."""
    x = bits.x
    if bits.reduction:
        out, sums = _empty((), dtype=_WIDE[x.dtype], device=_CPU), numbers_kept(bits)
        saved = _empty(sums, dtype=torch.float64, device=_CPU) if sums else None
    else:
        dtype = x.dtype if bits.law else _WIDE[x.dtype]
        out, saved = _like(x) if dtype is x.dtype else _empty(x.shape, dtype=dtype, device=_CPU), None
    return out, saved, not _run("bits_nll", bits, out, saved)


def numbers_kept(bits: Bits) -> int:
    """How many numbers the loss keeps for its backward pass: what a mean without weights is divided by is known."""
    return 3 if bits.reduction and (bits.weight is not None or bits.mask is not None) else 0


def nll_backward(bits: Bits, grad: Tensor, saved: Tensor | None) -> Tensor:
    """The gradient for the logits."""
    return _gradient("bits_nll_backward", bits, grad, saved)


def entropy(bits: Bits) -> Tensor:
    """In the dtype of the logits."""
    return _value("bits_entropy", bits)


def entropy_backward(bits: Bits, grad: Tensor) -> Tensor:
    """The gradient for the logits."""
    return _gradient("bits_entropy_backward", bits, grad)


def variance(bits: Bits) -> Tensor:
    """In the dtype of the logits."""
    return _value("bits_variance", bits)


def variance_backward(bits: Bits, grad: Tensor) -> Tensor:
    """The gradient for the logits."""
    return _gradient("bits_variance_backward", bits, grad)


def kl(bits: Bits) -> Tensor:
    """The divergence of the law of ``x`` from that of ``other``, in the dtype of ``x``."""
    return _value("bits_kl", bits)


def kl_backward(bits: Bits, grad: Tensor, wanted: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
    """The gradients for the logits of both laws, of those that are wanted."""
    x, other = bits.x, bits.other
    dx = _like(x) if wanted[0] else None
    dother = _empty(x.shape, dtype=_WIDE[x.dtype], device=_CPU) if wanted[1] and other is not None else None
    _run("bits_kl_backward", bits, dx, None, grad, dother)
    return dx, dother


def share(bits: Bits) -> tuple[Tensor, Tensor]:
    """(share - number)^2 of each row or reduced, and what backward needs."""
    out = _empty(() if bits.reduction else (bits.rows,), dtype=_WIDE[bits.x.dtype], device=_CPU)
    saved = _empty(2 * bits.rows + 1, dtype=torch.float64, device=_CPU)
    _run("bits_share", bits, out, saved)
    return out, saved


def share_backward(bits: Bits, grad: Tensor, saved: Tensor) -> Tensor:
    """The gradient for the logits."""
    return _gradient("bits_share_backward", bits, grad, saved)


def _value(name: str, bits: Bits) -> Tensor:
    out = _like(bits.x)
    _run(name, bits, out, None)
    return out


def _gradient(name: str, bits: Bits, grad: Tensor, saved: Tensor | None = None) -> Tensor:
    out = _like(bits.x)
    _run(name, bits, out, saved, grad)
    return out


def _run(
    name: str,
    bits: Bits,
    out: Tensor | None,
    saved: Tensor | None,
    grad: Tensor | None = None,
    other_out: Tensor | None = None,
) -> int:
    """Pack the operands for the library and call the operation. What is packed is held here until it returns."""
    x, other, weight, pos_weight, mask, number, reduction, law, allowed, rows = bits
    x = _flat(x)
    one_grad = False
    if grad is not None:
        one_grad = not any(grad.stride())
        grad = grad.resolve_neg() if one_grad else _flat(grad)
    if other is not None:
        other = _flat(other)
    if weight is not None:
        weight = _flat(weight)
    if pos_weight is not None:
        pos_weight = _flat(pos_weight)
    if mask is not None:
        mask = _flat(mask)
    return function(name)(
        _pack(
            0 if out is None else out.data_ptr(),
            0 if other_out is None else other_out.data_ptr(),
            x.data_ptr() or address(x),
            0 if other is None else other.data_ptr() or address(other),
            0 if grad is None else grad.data_ptr() or address(grad),
            0 if weight is None else weight.data_ptr() or address(weight),
            0 if pos_weight is None else pos_weight.data_ptr() or address(pos_weight),
            0 if mask is None else mask.data_ptr() or address(mask),
            0 if saved is None else saved.data_ptr(),
            number,
            rows,
            x.numel() // rows if rows else 0,
            CODES[x.dtype],
            not law,
            law,
            allowed,
            one_grad,
            reduction,
            _threads(),
        )
    )


def _like(x: Tensor) -> Tensor:
    return _empty_like(x) if x.is_contiguous() else _empty(x.shape, dtype=x.dtype, device=_CPU)


def _flat(t: Tensor) -> Tensor:
    return t if t.is_contiguous() and not t.is_neg() else t.resolve_neg().contiguous()
