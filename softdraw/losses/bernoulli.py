"""The negative log-likelihood of bits under the law that the logits give."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.nn.functional import logsigmoid

from softdraw.arguments import compute_dtype
from softdraw.checks import check_device, check_floating, check_real, number
from softdraw.losses.common import aligned, check_reduction, checked, kept_mask, reduce, without
from softdraw.numerics import times
from softdraw.operators import bits
from softdraw.operators.bits import Bits
from softdraw.overrides import overridable


@overridable
def bernoulli_nll(
    logits: Tensor,
    target: Tensor,
    pos_weight: float | Tensor | None = None,
    *,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""The negative log-likelihood of binary targets: what a decoder of bits or a binary classifier is trained on.

    .. math:: \ell = -p\,y \log\sigma(x) - (1 - y) \log\sigma(-x)

    Args:
        logits: x, any shape, any floating dtype; never probabilities.
        target: y of the same shape, in [0, 1]; bool, integer or floating.
        pos_weight: p >= 0, the weight of the positive class; a number, a tensor of the logits' dimensions, each 1 or
            the size, or one number a class, ``(C,)``, for logits ``(C,)`` or ``(N, C)``.
        mask: bool, True = counted: the shape of the logits, 1 where it is the same along a dimension. What it leaves
            out is not looked at (a NaN may stand there) and gets zero gradient.
        weight: of an element, shapes as for ``mask``.
        reduction: ``"mean"`` is :math:`\sum w \ell / \sum w` over the elements kept (0 if none is), ``"sum"``
            :math:`\sum w \ell`, ``"none"`` :math:`w \ell` for every element, 0 where it is left out.

    Returns:
        float32 (float64 for float64 logits), 0-d, or the shape of the logits with ``"none"``.

    Gradient:
        :math:`(1 - y)\,\sigma(x) - p\,y\,\sigma(-x)`, exact; at infinite logits its limit, also where the loss is inf.

    Raises:
        ValueError: shapes that would broadcast by accident; a value outside [0, 1] (CPU; an assertion in the stream of
        an accelerator and in compiled code). TypeError: not a tensor.

    Example:
        >>> x = torch.tensor([3.0, -50.0, float("-inf")], requires_grad=True)
        >>> softdraw.losses.bernoulli_nll(x, torch.tensor([1, 1, 0]), reduction="none").detach()
        tensor([4.8587e-02, 5.0000e+01, 0.0000e+00])
        >>> softdraw.losses.bernoulli_nll(x, torch.tensor([1, 1, 0]), reduction="sum").backward(); x.grad
        tensor([-0.0474, -1.0000,  0.0000])

    Source:
        Cox (1958), "The regression analysis of binary sequences", eq. 3.
    """
    if mask is None and weight is None and pos_weight is None and bits.ordinary(logits, target):
        check_reduction(reduction)
        read = Bits(logits, target, reduction=bits.REDUCTIONS[reduction], allowed=bits.UNIT_INTERVAL)
        return bits.nll(read, lambda: _checked_target(target, None, logits.dtype))
    check_floating("logits", logits)
    mask = kept_mask(mask, logits, "the logits")
    _check_target(target, logits)
    if bits.takes(logits, target, pos_weight, weight):
        return _in_one_pass(logits, target, pos_weight, mask, weight, reduction)
    x = without(logits.to(compute_dtype(logits.dtype)), mask)
    y = _checked_target(target, mask, x.dtype)
    p = 1.0 if pos_weight is None else _pos_weight(pos_weight, x, x.dtype)
    return reduce(times(p * y, -logsigmoid(x)) + times(1 - y, -logsigmoid(-x)), mask, weight, reduction)


def _in_one_pass(
    logits: Tensor,
    target: Tensor,
    pos_weight: float | Tensor | None,
    mask: Tensor | None,
    weight: Tensor | None,
    reduction: str,
) -> Tensor:
    """The same by a kernel, which checks the target on its way."""
    dtype = compute_dtype(logits.dtype)
    x = logits if logits.dtype in bits.CODES else logits.to(dtype)
    p, number = None, 1.0
    if pos_weight is not None:
        p = _pos_weight(pos_weight, x, dtype)
        # One number for all is read where that waits for nothing.
        p, number = (None, p.item()) if not p.dim() and x.is_cpu and not is_compiling() else (p.expand(x.shape), 1.0)
    check_reduction(reduction)
    if weight is not None:
        weight = aligned("weight", weight, logits, "the unreduced loss").to(dtype)
    y = target if target.dtype == dtype else target.to(dtype)
    read = Bits(x, y, weight, p, mask, number, bits.REDUCTIONS[reduction], False, bits.UNIT_INTERVAL)
    return bits.nll(read, lambda: _checked_target(target, mask, dtype))


def _check_target(target: Tensor, logits: Tensor) -> None:
    check_real("target", target)
    check_device("target", target, logits.device)
    if target.shape != logits.shape:
        raise ValueError(
            f"target must have the shape of the logits, {tuple(logits.shape)}, got {tuple(target.shape)}: "
            "squeeze, unsqueeze or expand one of them, so that each element meets its own target"
        )


def _checked_target(target: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    y = without(target.to(dtype), mask)
    return checked(y, (y >= 0) & (y <= 1), "target", "from 0 to 1")


def _pos_weight(pos_weight: float | Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    if isinstance(pos_weight, Tensor):
        check_real("pos_weight", pos_weight)
        p = pos_weight.to(dtype)
    else:
        p = x.new_ones((), dtype=dtype) * number("pos_weight", pos_weight, "a number or a tensor")
    check_device("pos_weight", p, x.device)
    if p.numel() == 1:
        p = p.reshape(())
    elif p.dim() != 1 or x.dim() > 2 or p.shape != x.shape[-1:]:
        p = aligned("pos_weight", p, x, "the logits")
    return checked(p, p >= 0, "pos_weight", "at least 0")
