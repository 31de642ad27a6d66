"""Passes over the logits of bits: one forward, one backward, where a fast body has them.

``takes`` says whether a call may come here: in eager code, or in a graph of torch.compile, which has a pass as one
operator (``graph``). Everything else that inspects the operations (torch.func, tracers, DTensors), and every gradient
except that of the logits, gets the plain-torch formulas of laws and losses. A backward pass that is itself
differentiated or mapped gets the formula of the slope, which is here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, is_grad_enabled
from torch.compiler import is_compiling

from softdraw import kernels
from softdraw.arguments import compute_dtype
from softdraw.checks import DENSE
from softdraw.kernels.bits_cpu import ANY_NUMBER, CODES, UNIT_INTERVAL, ZERO_OR_ONE, Bits
from softdraw.kernels.native import REDUCTIONS
from softdraw.numerics import times
from softdraw.operators import graph
from softdraw.private_torch import assert_later, has_storage, quick_apply
from softdraw.tensors import PLAIN, is_plain

__all__ = [
    "ANY_NUMBER",
    "CODES",
    "REDUCTIONS",
    "UNIT_INTERVAL",
    "ZERO_OR_ONE",
    "Bits",
    "entropy",
    "kl",
    "nll",
    "ordinary",
    "share",
    "takes",
    "variance",
]

_WIDE = (torch.float32, torch.float64)
_REFUSED = {UNIT_INTERVAL: "target must be from 0 to 1", ZERO_OR_ONE: "value must be 0 or 1"}


def takes(x: Tensor, *rest: Any) -> bool:
    """Whether the passes take logits ``x`` and the other operands, none of which may want a gradient."""
    if not is_plain(x):
        learned = any(isinstance(t, Tensor) and t.requires_grad and is_grad_enabled() for t in rest)
        return not learned and graph.takes(x, *rest)
    device = x.device
    for t in rest:
        if isinstance(t, Tensor) and (
            type(t) not in PLAIN or t.device != device or (t.requires_grad and is_grad_enabled())
        ):
            return False
    # A dtype that the kernels do not know is brought to float32.
    body = kernels.body_for(x) if x.dtype in CODES else kernels.body(device)
    return body.over_bits is not None


def ordinary(x: Tensor, y: Tensor) -> bool:
    """Whether these are logits and targets, on the CPU and of one shape and dtype, that the passes take as they are."""
    return (
        is_plain(x)
        and type(y) in PLAIN
        and x.dtype is y.dtype
        and x.dtype in _WIDE
        and x.is_cpu
        and y.is_cpu
        and x.layout is DENSE
        and y.layout is DENSE
        and not (x.is_nested or y.is_nested or (y.requires_grad and is_grad_enabled()))
        and x.shape == y.shape
        and kernels.body_for(x).over_bits is not None
    )


def _body(x: Tensor) -> Any:
    return kernels.body_for(x).over_bits


def _loss(bits: Bits, refuse: Callable[[], object]) -> tuple[Tensor, Tensor | None]:
    """The loss of checked targets and its sums. On the CPU the body looks at the targets. Where nothing may wait for a
    value, ``refuse`` asserts in the stream of the device."""
    x = bits.x
    if not x.is_cpu and bits.allowed != ANY_NUMBER:
        refuse()
    out, sums, legal = _body(x).nll(bits)
    if not legal:
        refuse()
    return out, sums


def nll(bits: Bits, refuse: Callable[[], object]) -> Tensor:
    """The negative log-likelihood of ``bits.other``. ``refuse`` is called where a value is not allowed."""
    x = bits.x
    if is_compiling():
        out, legal = graph.bits_pass("nll", bits)
        if bits.allowed != ANY_NUMBER:
            assert_later(legal, _REFUSED[bits.allowed])
        return out
    if x.requires_grad and is_grad_enabled():
        return _nll(x, bits, refuse)
    return _loss(bits, refuse)[0]


def entropy(x: Tensor) -> Tensor:
    """The entropy of each bit."""
    if is_compiling():
        return graph.bits_pass("entropy", Bits(x))[0]
    return _entropy(x) if x.requires_grad and is_grad_enabled() else _body(x).entropy(Bits(x))


def variance(x: Tensor) -> Tensor:
    """The variance of each bit."""
    if is_compiling():
        return graph.bits_pass("variance", Bits(x))[0]
    return _variance(x) if x.requires_grad and is_grad_enabled() else _body(x).variance(Bits(x))


def kl(x: Tensor, z: Tensor) -> Tensor:
    """The divergence of bits with logits x from bits with logits z, of one shape; z is in the wide dtype."""
    if is_compiling():
        return graph.bits_pass("kl", Bits(x, z))[0]
    if (x.requires_grad or z.requires_grad) and is_grad_enabled():
        return _kl(x, z)
    return _body(x).kl(Bits(x, z))


def share(bits: Bits) -> Tensor:
    """(share - number)^2 for the share of 1s that is expected in each row."""
    x = bits.x
    if is_compiling():
        return graph.bits_pass("share", bits)[0]
    return _share(x, bits) if x.requires_grad and is_grad_enabled() else _body(x).share(bits)[0]


def _save(ctx: Any, bits: Bits, sums: Tensor | None) -> None:
    # Each tensor, or None in its place, takes time. Most calls have the first two only.
    tensors = 2 if bits[2] is None and bits[3] is None and bits[4] is None else 5
    ctx.save_for_backward(*bits[:tensors])
    ctx.rest = bits[tensors:], sums


def _saved(ctx: Any) -> tuple[Bits, Tensor | None]:
    rest, sums = ctx.rest
    return tuple.__new__(Bits, ctx.saved_tensors + rest), sums


def _by_formula(grad: Tensor) -> bool:
    return is_grad_enabled() or not has_storage(grad) or not is_plain(grad)


def _wide(x: Tensor) -> Tensor:
    return x.to(compute_dtype(x.dtype))


def _quick(name: str, forward: Callable, backward: Callable) -> Callable[..., Any]:
    rules = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return quick_apply(type(name, (torch.autograd.Function,), rules), backward)


def _nll_forward(ctx: Any, x: Tensor, bits: Bits, refuse: Callable[[], object]) -> Tensor:
    out, sums = _loss(bits, refuse)
    _save(ctx, bits, sums)
    return out


def _nll_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    bits, sums = _saved(ctx)
    if not _by_formula(grad):
        return _body(bits.x).nll_backward(bits, grad, sums), None, None
    slope = grad.to(compute_dtype(bits.x.dtype)) * _nll_slope(bits)
    if sums is not None:
        slope = slope / sums[2]
    elif bits.reduction == REDUCTIONS["mean"]:
        slope = slope / max(bits.x.numel(), 1)
    return slope.to(bits.x.dtype), None, None


def _nll_slope(bits: Bits) -> Tensor:
    """w ((1 - y) sigmoid(x) - p y sigmoid(-x)); of a law minus that, and 0 where a bit is certain."""
    x, y, weight, pos_weight, mask, number, *_ = bits
    assert y is not None
    x = _wide(x) if mask is None else _wide(x).masked_fill(~mask, 0)
    p = number if pos_weight is None else pos_weight
    slope = (1 - y) * torch.sigmoid(x) - p * y * torch.sigmoid(-x)
    if bits.law:
        slope = -slope.masked_fill(x.isinf(), 0)
    slope = slope if weight is None else weight * slope
    return slope if mask is None else slope.masked_fill(~mask, 0)


_nll = _quick("nll", _nll_forward, _nll_backward)


def _of_one_logit(name: str, slope: Callable[[Tensor], Tensor]) -> Callable:
    """A function of each logit by itself, ``slope`` being the formula of its derivative."""

    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return getattr(_body(x), name)(Bits(x))

    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        if not _by_formula(grad):
            return getattr(_body(x), f"{name}_backward")(Bits(x), grad)
        return (grad.to(compute_dtype(x.dtype)) * slope(_wide(x))).to(x.dtype)

    return _quick(name, forward, backward)


def _entropy_slope(x: Tensor) -> Tensor:
    return times(torch.sigmoid(x) * torch.sigmoid(-x), -x)


def _variance_slope(x: Tensor) -> Tensor:
    on, off = torch.sigmoid(x), torch.sigmoid(-x)
    return on * off * (off - on)


_entropy = _of_one_logit("entropy", _entropy_slope)
_variance = _of_one_logit("variance", _variance_slope)


def _kl_forward(ctx: Any, x: Tensor, z: Tensor) -> Tensor:
    ctx.save_for_backward(x, z)
    return _body(x).kl(Bits(x, z))


def _kl_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    x, z = ctx.saved_tensors
    if not _by_formula(grad):
        return _body(x).kl_backward(Bits(x, z), grad, ctx.needs_input_grad)
    slope, other = _kl_slopes(_wide(x), z)
    g = grad.to(z.dtype)
    return (g * slope).to(x.dtype), g * other


def _kl_slopes(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """p (1 - p) (x - z) and sigmoid(z) - sigmoid(x). Where q forbids a value, that of the other value's term; 0 for the
    logit of a bit that is certain."""
    on, off = torch.sigmoid(x), torch.sigmoid(-x)
    sign = torch.where(z.isinf(), z.sign(), 0)
    finite_x, finite_z = x.masked_fill(x.isinf(), 0), z.masked_fill(sign != 0, 0)
    possible = sign * (1 + torch.nn.functional.logsigmoid(sign * finite_x))
    slope = times(on * off, torch.where(sign != 0, possible, finite_x - finite_z))
    other = off * torch.sigmoid(z) - on * torch.sigmoid(-z)
    return slope.masked_fill(x.isinf(), 0), other.masked_fill(z.isinf(), 0)


_kl = _quick("kl", _kl_forward, _kl_backward)


def _share_forward(ctx: Any, x: Tensor, bits: Bits) -> Tensor:
    out, sums = _body(x).share(bits)
    _save(ctx, bits, sums)
    return out


def _share_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    bits, sums = _saved(ctx)
    if not _by_formula(grad):
        return _body(bits.x).share_backward(bits, grad.contiguous(), sums), None
    assert sums is not None
    return (_share_slope(bits, grad, sums[1:-1:2]) / sums[-1]).to(bits.x.dtype), None


def _share_slope(bits: Bits, grad: Tensor, weights: Tensor) -> Tensor:
    """2 g (share - number) w sigmoid(x) sigmoid(-x) / sum w, where the share is made again: it depends on x too."""
    x, _, weight, _, mask, number, *_ = bits
    shape = (bits.rows, x.numel() // max(bits.rows, 1))
    logits = _wide(x).reshape(shape)
    w = torch.ones_like(logits) if weight is None else weight.reshape(shape)
    if mask is not None:
        logits, w = logits.masked_fill(~mask.reshape(shape), 0), w.masked_fill(~mask.reshape(shape), 0)
    counts = weights.to(w.dtype).unsqueeze(-1)
    w = w / torch.where(counts == 0, 1, counts)
    on, off = torch.sigmoid(logits), torch.sigmoid(-logits)
    away = ((w * on).sum(-1, keepdim=True) - number).masked_fill(counts == 0, 0)
    slope = 2 * grad.reshape(-1, 1) * away * w * on * off
    return (slope if mask is None else slope.masked_fill(~mask.reshape(shape), 0)).reshape(x.shape)


_share = _quick("share", _share_forward, _share_backward)
