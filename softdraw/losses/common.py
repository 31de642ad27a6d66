"""What every loss does: checks of values, masks, reductions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softdraw.arguments import compute_dtype, prepare_logits
from softdraw.checks import check_device, check_mask, check_real, given
from softdraw.kernels.pass_reference import Rows, reduced
from softdraw.private_torch import assert_later

REDUCTIONS = ("mean", "sum", "none")


def kept_rows(logits: Tensor, dim: int, mask: Tensor | None, weight: Tensor | None, reduction: object) -> Rows:
    """The logits, categories last and in their own dtype, which rows count, and how much, as a pass takes them."""
    x = prepare_logits(logits, dim)[0]
    if mask is not None:
        mask = kept_mask(mask, x[..., 0], "the logits without dim")
    check_reduction(reduction)
    if weight is not None:
        weight = aligned("weight", weight, x[..., 0], "the logits without dim").to(compute_dtype(x.dtype))
    return Rows(x, None, None, None, None, mask, weight)


def checked(x: Tensor, legal: Tensor, name: str, allowed: str) -> Tensor:
    """``x``, once ``legal`` holds in every element.

    On the CPU an illegal value is a ValueError. Elsewhere, and where the call is being compiled, it is an assertion in
    the stream of the device: nothing waits for it.
    """
    if torch.compiler.is_compiling():
        assert_later(legal.all(), f"{name} must be {allowed}")
    else:
        _Check.apply(x.detach(), legal, name, allowed)
    return x


class _Check(torch.autograd.Function):
    """Looks at values under any torch.func transform, where a plain ``if`` would be refused.

    Its inputs are detached and its output is not used, so ``x`` itself keeps every derivative that torch has.
    """

    @staticmethod
    def forward(x: Tensor, legal: Tensor, name: str, allowed: str) -> Tensor:
        fine = legal.all()
        if x.device.type != "cpu":
            assert_later(fine, f"{name} must be {allowed}")
        elif not fine:
            x, legal = torch.broadcast_tensors(x, legal)
            raise ValueError(f"{name} must be {allowed}, got {x[~legal].flatten()[0].item()}")
        return fine

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple[Tensor, None]:
        # The two may be mapped over different dimensions; in front they pair up again.
        front = (t if d is None else t.movedim(d, 0) for t, d in zip(args, in_dims, strict=True))
        return _Check.apply(*front), None


def kept_mask(mask: Tensor | None, like: Tensor, what: str) -> Tensor | None:
    """The mask (True = counted) at the shape of ``like``, which is what it keeps."""
    if mask is None:
        return None
    check_mask(mask, like.device, "counted")
    return aligned("mask", mask, like, what)


def aligned(name: str, x: Tensor, like: Tensor, what: str) -> Tensor:
    """``x`` at the shape of ``like``. It must have as many dimensions, each 1 or the size, so that nothing broadcasts
    by accident."""
    check_real(name, x)
    check_device(name, x, like.device)
    shape = like.shape
    if x.dim() != len(shape) or any(n not in (1, m) for n, m in zip(x.shape, shape, strict=True)):
        raise ValueError(
            f"{name} must have the shape of {what}, {tuple(shape)}, or 1 in some of its dimensions, "
            f"got {tuple(x.shape)}: reshape it, so that each of its dimensions stands where it is meant"
        )
    return x.expand(shape)


def without(x: Tensor, mask: Tensor | None, fill: float = 0) -> Tensor:
    """``x`` with what the mask leaves out filled: its value is never looked at, and gets no gradient."""
    return x if mask is None else x.masked_fill(~mask, fill)


def reduce(loss: Tensor, mask: Tensor | None, weight: Tensor | None, reduction: str) -> Tensor:
    """sum(w l), or sum(w l) / sum(w), or w l itself, over what the mask keeps; w is 1 without a weight.

    The mean over nothing is 0, so that a batch without anything to learn from changes nothing.
    """
    check_reduction(reduction)
    if weight is not None:
        weight = aligned("weight", weight, loss, "the unreduced loss")
    return reduced(loss, mask, weight, reduction)


def check_reduction(reduction: object) -> None:
    """``reduction`` is one of three words."""
    if not isinstance(reduction, str) or reduction not in REDUCTIONS:
        got = repr(reduction) if isinstance(reduction, str) else given(reduction)
        raise ValueError(f"reduction must be one of {', '.join(map(repr, REDUCTIONS))}, got {got}")
