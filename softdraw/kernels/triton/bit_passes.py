"""Passes of laws and losses over bits in Triton, one logit each: a number a bit or a row of bits, and its gradient.

The functions are those of ``bits_cpu``; csrc/bits_passes.h has the same passes on the CPU. Nothing is refused and
nothing is waited for: what a loss checks of its target, it asserts itself on a GPU (``operators/bits.py``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softdraw.arguments import compute_dtype
from softdraw.kernels.bits_cpu import Bits
from softdraw.kernels.native import REDUCTIONS
from softdraw.kernels.triton import bit_kernels, launching
from softdraw.kernels.triton.layout import Tile, rule_tile

_TOGETHER, _WARPS = 1024, 4  # bits of a program
_MEAN = REDUCTIONS["mean"]


def nll(bits: Bits) -> tuple[Tensor, Tensor | None, bool]:
    """The loss, and what backward needs: the sums of losses and of weights, and what the loss was divided by."""
    x = bits.x
    named = _operands("nll", bits)
    if not bits.reduction:
        out = x.new_empty(x.shape, dtype=x.dtype if bits.law else compute_dtype(x.dtype))
        _launch(bit_kernels.value, named | {"out": out})
        return out, None, True
    parts = x.new_empty((2, -(-x.numel() // _TOGETHER)), dtype=compute_dtype(x.dtype))
    _launch(bit_kernels.value, named | {"out": None, "sums": parts[0], "weights": parts[1]})
    sums = parts.sum(-1, dtype=torch.float64)
    divisor = _or_one(sums[1]) if bits.reduction == _MEAN else sums.new_ones(())
    return (sums[0] / divisor).to(parts.dtype), torch.cat((sums, divisor.reshape(1))), True


def nll_backward(bits: Bits, grad: Tensor, saved: Tensor | None) -> Tensor:
    """The gradient for the logits."""
    if saved is not None:
        grad = (grad / saved[2]).to(compute_dtype(bits.x.dtype))
    return _gradients("nll", bits, grad)[0]


def entropy(bits: Bits) -> Tensor:
    """In the dtype of the logits."""
    return _value("entropy", bits)


def entropy_backward(bits: Bits, grad: Tensor) -> Tensor:
    """The gradient for the logits."""
    return _gradients("entropy", bits, grad)[0]


def variance(bits: Bits) -> Tensor:
    """In the dtype of the logits."""
    return _value("variance", bits)


def variance_backward(bits: Bits, grad: Tensor) -> Tensor:
    """The gradient for the logits."""
    return _gradients("variance", bits, grad)[0]


def kl(bits: Bits) -> Tensor:
    """The divergence of the law of ``x`` from that of ``other``, in the dtype of ``x``."""
    return _value("kl", bits)


def kl_backward(bits: Bits, grad: Tensor, wanted: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
    """The gradients for the logits of both laws, of those that are wanted."""
    dx, dother = _gradients("kl", bits, grad, wanted[1])
    return dx if wanted[0] else None, dother


def share(bits: Bits) -> tuple[Tensor, Tensor]:
    """(share - number)^2 of each row or reduced, and what backward needs: share and weights of each row, in turn, and
    what the sum of the losses was divided by."""
    x, rows = bits.x, bits.rows
    named, cut = _rows_of(bits)
    parts = x.new_empty((2, rows, cut.splits), dtype=compute_dtype(x.dtype))
    _launch(bit_kernels.share, named | {"sums": parts[0], "weights": parts[1]}, cut)
    sums, weights = parts.sum(-1, dtype=torch.float64)
    there = weights != 0
    shares = sums / _or_one(weights)
    loss = torch.where(there, (shares - bits.number).square(), 0)
    divisor = _or_one(there.sum().double()) if bits.reduction == _MEAN else sums.new_ones(())
    saved = torch.cat((torch.stack((shares, weights), -1).view(-1), divisor.reshape(1)))
    return (loss.sum() / divisor if bits.reduction else loss).to(parts.dtype), saved


def share_backward(bits: Bits, grad: Tensor, saved: Tensor) -> Tensor:
    """The gradient for the logits."""
    shares, weights = saved[:-1].view(-1, 2).unbind(-1)
    factor = 2 * grad.double() / saved[-1] * (shares - bits.number) / _or_one(weights)
    factor = torch.where(weights == 0, 0, factor).to(compute_dtype(bits.x.dtype))
    named, cut = _rows_of(bits)
    out = bits.x.new_empty(bits.x.shape)
    _launch(bit_kernels.share_slope, named | {"out": out, "factor": factor}, cut)
    return out


def _or_one(sums: Tensor) -> Tensor:
    return torch.where(sums == 0, 1, sums)


def _value(op: str, bits: Bits) -> Tensor:
    out = bits.x.new_empty(bits.x.shape)
    _launch(bit_kernels.value, _operands(op, bits) | {"out": out})
    return out


def _gradients(op: str, bits: Bits, grad: Tensor, other: bool = False) -> tuple[Tensor, Tensor | None]:
    """Those of the logits and, where it is wanted, of the second ones."""
    x = bits.x
    out = x.new_empty(x.shape)
    other_out = x.new_empty(x.shape, dtype=compute_dtype(x.dtype)) if other else None
    one = not any(grad.stride())
    named = _operands(op, bits) | {"out": out, "other_out": other_out, "ONE_GRAD": one}
    _launch(bit_kernels.slope, named | {"grad": grad.resolve_neg() if one else _flat(grad)})
    return out, other_out


def _operands(op: str, bits: Bits) -> dict[str, Any]:
    """What a pass reads, as kernels name it. A weight of the positive class that is one for all goes as one."""
    x, positive = bits.x, bits.pos_weight
    one = positive is not None and not any(positive.stride())
    named = launching.number("number", bits.number, x)
    if positive is not None and one:
        named = {"numbers": positive.resolve_neg(), "number": 1.0}
    return named | {
        "logits": _flat(x),
        "other": _flat(bits.other),
        "weight": _flat(bits.weight),
        "positive": None if one else _flat(positive),
        "mask": None if bits.mask is None else _flat(bits.mask).view(torch.uint8),  # pyright: ignore
        "sums": None,
        "weights": None,
        "bits": x.numel(),
        "OP": op,
        "LAW": bits.law,
        "T": launching.TYPES[compute_dtype(x.dtype)],
    }


def _rows_of(bits: Bits) -> tuple[dict[str, Any], Tile]:
    """The operands as rows, and how these are cut."""
    cols = bits.x.numel() // max(bits.rows, 1)
    named = _operands("share", bits) | {"rows": bits.rows, "cols": cols, "UNIT": 4 if cols % 4 == 0 else 1}
    return named, rule_tile(bits.rows, cols, bits.x.dtype)


def _flat(x: Tensor | None) -> Any:
    return None if x is None else x.resolve_neg().contiguous()


def _launch(kernel: Any, named: dict[str, Any], cut: Tile | None = None) -> None:
    """Queue a kernel where there are bits."""
    if named["bits"]:
        cut = cut or Tile(1, _TOGETHER, 1, -(-named["bits"] // _TOGETHER), _WARPS)
        launching.launch(kernel, cut, named | {"N": _TOGETHER})
