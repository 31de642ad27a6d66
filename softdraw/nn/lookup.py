"""One-hots times a codebook, looked up by index: the product's value and gradients, without the product."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softdraw.private_torch import quick_apply
from softdraw.tensors import is_plain


def look_up(y: Tensor, index: Tensor, codebook: Tensor) -> Tensor:
    """``y @ codebook`` for exact one-hots y ``(..., G, K)`` of index ``(..., G)``: ``(..., G, D)``.

    The codebook is ``(G, K, D)``, or ``(1, K, D)`` where the groups share one. A row without a code is zero. What
    arrives at y is what the product would send there, so that a rule sees the value of every code.
    """
    if is_plain(y) and is_plain(codebook):
        return _quick(y, codebook, index)
    return _LookUp.apply(y, index, codebook)


def product(y: Tensor, codebook: Tensor) -> Tensor:
    """``y @ codebook`` for any y ``(..., G, K)``."""
    if codebook.shape[0] == 1:
        return y @ codebook[0]
    return (y.unsqueeze(-2) @ codebook).squeeze(-2) if y.dim() == 2 else _by_group(y, codebook)


def _by_group(y: Tensor, codebook: Tensor) -> Tensor:
    """One product of matrices a group."""
    rows = y.reshape(-1, *y.shape[-2:]).transpose(0, 1)
    return (rows @ codebook).transpose(0, 1).reshape(*y.shape[:-1], codebook.shape[-1])


def _places(index: Tensor, codebook: Tensor) -> Tensor:
    """Where in the flattened codebook the codes are."""
    groups, codes, _ = codebook.shape
    first = torch.arange(groups, device=index.device) * codes
    return index.clamp_min(0) + first


class _LookUp(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, index: Tensor, codebook: Tensor) -> Tensor:
        found = codebook.flatten(0, 1).index_select(0, _places(index, codebook).flatten())
        found = found.view(*index.shape, codebook.shape[-1])
        # A row without an index is zero or, where its logits were NaN, NaN.
        return torch.where(index.unsqueeze(-1) < 0, y[..., :1], found)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, index, codebook = inputs
        ctx.save_for_backward(index, codebook)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple:
        of_y, _, of_codes = ctx.needs_input_grad
        index, codebook = ctx.saved_tensors
        dy, dcodes = _gradients(grad_outputs[0], index, codebook, of_y, of_codes)
        return dy, None, dcodes


class _QuickLookUp(torch.autograd.Function):
    """The same where nothing but autograd sees it, in a form that is quicker to call."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, codebook: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index, codebook)
        return _LookUp.forward(y, index, codebook)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple:
        of_y, of_codes, _ = ctx.needs_input_grad
        index, codebook = ctx.saved_tensors
        return (*_gradients(grad_outputs[0], index, codebook, of_y, of_codes), None)


_quick = quick_apply(_QuickLookUp, _QuickLookUp.backward)


def _gradients(
    grad: Tensor, index: Tensor, codebook: Tensor, of_y: bool, of_codes: bool
) -> tuple[Tensor | None, Tensor | None]:
    """For the one-hots and for the codebook, as far as they are wanted."""
    return (
        product(grad, codebook.transpose(-2, -1)) if of_y else None,
        _scattered(grad, index, codebook) if of_codes else None,
    )


def _scattered(grad: Tensor, index: Tensor, codebook: Tensor) -> Tensor:
    """The gradient of the codebook: for each code the sum over the rows that took it."""
    rows = grad.masked_fill(index.unsqueeze(-1) < 0, 0).reshape(-1, grad.shape[-1])
    total = torch.zeros(codebook.shape, dtype=grad.dtype, device=grad.device).flatten(0, 1)
    return total.index_add(0, _places(index, codebook).flatten(), rows).view(codebook.shape)
