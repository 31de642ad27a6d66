"""What every loss does: checks of values, masks, reductions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softdraw.arguments import check_floating, check_logits, compute_dtype, last
from softdraw.numerics import times

REDUCTIONS = ("mean", "sum", "none")


def rows(logits: Tensor, dim: int) -> Tensor:
    """The logits in the compute dtype with the categories last: ``(*rows, K)``."""
    return last(logits, check_logits(logits, dim)).to(compute_dtype(logits.dtype))


def scalars(logits: Tensor) -> Tensor:
    """Bernoulli logits in the compute dtype."""
    check_floating("logits", logits)
    return logits.to(compute_dtype(logits.dtype))


def checked(x: Tensor, legal: Tensor, name: str, allowed: str) -> Tensor:
    """``x``, once ``legal`` holds in every element.

    On the CPU an illegal value is a ValueError. Elsewhere, and where the call is being compiled, it is an assertion in
    the stream of the device: nothing waits for it.
    """
    return _Checked.apply(x, legal, name, allowed)


class _Checked(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, legal: Tensor, name: str, allowed: str) -> Tensor:
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            # This check waits for no device; torch has no public name for it.
            torch._assert_async(legal.all(), f"{name} must be {allowed}")  # pyright: ignore[reportPrivateImportUsage]
        elif not legal.all():
            raise ValueError(f"{name} must be {allowed}, got {x[~legal.expand(x.shape)].flatten()[0].item()}")
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        return grad_outputs[0], None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple[Tensor, int | None]:
        return _Checked.apply(*args), in_dims[0]


def kept(mask: Tensor | None, shape: torch.Size, what: str) -> Tensor | None:
    """The mask at ``shape``, that of what it keeps (True = counted)."""
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = f"a tensor of {mask.dtype}" if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask must be a bool tensor (True = counted), got {got}: write mask.bool() or mask > 0")
    return aligned("mask", mask, shape, what)


def aligned(name: str, x: Tensor, shape: torch.Size, what: str) -> Tensor:
    """``x`` at ``shape``; it must have as many dimensions, each 1 or the size: nothing broadcasts by accident."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}: write torch.tensor(...) first")
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

    The mean over nothing is 0, as a batch without anything to learn from should move nothing.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(map(repr, REDUCTIONS))}, got {reduction!r}")
    w = weights(loss, mask, weight, "the unreduced loss")
    loss = times(w, loss)
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / _or_one(w.sum())


def weights(like: Tensor, mask: Tensor | None, weight: Tensor | None, what: str) -> Tensor:
    """The weight of every element, 0 where it is left out, at the shape and dtype of ``like``."""
    w = torch.ones_like(like) if weight is None else aligned("weight", weight, like.shape, what).to(like.dtype)
    return without(w, mask)


def mean_row(x: Tensor, weight: Tensor, over: tuple[int, ...]) -> Tensor:
    """The weighted mean of ``(*batch, K)`` over some dimensions of the batch, weights ``batch``; 0 where no weight is.

    No dimensions are flattened into one: of a DTensor whose shards are uneven that is not possible.
    """
    total = total_over(weight, over).unsqueeze(-1)
    return total_over(times(weight.unsqueeze(-1), x), over) / _or_one(total)


def total_over(x: Tensor, over: tuple[int, ...]) -> Tensor:
    """The sum over some dimensions, which may be none."""
    return x.sum(over) if over else x


def _or_one(total: Tensor) -> Tensor:
    return torch.where(total == 0, 1, total)
