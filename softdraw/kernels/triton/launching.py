"""What every call does with its arguments before a kernel is queued."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from softdraw.arguments import Draw, Tau, compute_dtype
from softdraw.kernels import reference
from softdraw.kernels.triton.layout import Tile, each, flat, layout_of

TYPES = {torch.float32: tl.float32, torch.float64: tl.float64}


def contiguous(draw: Draw) -> Draw:
    """The draw with logits and mask in the order of memory."""
    mask = None if draw.mask is None else draw.mask.contiguous()
    return draw._replace(logits=draw.logits.contiguous(), mask=mask)


def operands(draw: Draw) -> dict[str, Any]:
    """What every draw is made from, as kernels name it."""
    logits, _, seed, rows, mask, col_start = draw
    batch = logits.shape[:-1]
    seeds, each_seed = (None, False) if seed is None else each(seed, batch)
    return {
        "logits": logits,
        "mask": None if mask is None else mask.view(torch.uint8),
        "seeds": seeds,
        "ids": None if rows is None else flat(rows, batch),
        "rows": batch.numel(),
        "cols": logits.shape[-1],
        "quad": col_start // 4,
        "T": TYPES[compute_dtype(logits.dtype)],
        "EACH_SEED": each_seed,
    }


def sampled(draw: Draw, out: Tensor, grad: Tensor, index: Tensor) -> dict[str, Any]:
    """What the gradient of every rule is made from, as kernels name it: ``grad`` has the shape of the logits, or a
    dimension of samples before it, in which logits and mask are the same."""
    logits, cols = draw.logits.resolve_neg(), grad.shape[-1]
    grad, index = grad.resolve_neg(), index.contiguous()
    form = _form(logits, draw.mask, grad, out)
    if form is None:
        draw, grad = contiguous(draw._replace(logits=logits)), grad.contiguous()
        logits = draw.logits
        form = _form(logits, draw.mask, grad, out)
    assert form is not None
    rows = logits.shape[:-1].numel()
    named = form | tau_of(draw.tau, logits) | {"out": out, "logits": logits, "grad": grad, "ats": index}
    named |= {"mask": None if draw.mask is None else draw.mask.view(torch.uint8), "T": TYPES[compute_dtype(grad.dtype)]}
    return named | {"draws": index.numel(), "rows": rows, "cols": cols, "ONCE": index.numel() == rows}


def _form(logits: Tensor, mask: Tensor | None, grad: Tensor, out: Tensor) -> dict[str, int] | None:
    mask = None if mask is None else mask.expand(grad.shape)
    return layout_of({"out": out, "in": logits.expand(grad.shape), "grad": grad}, mask)


def number(name: str, value: float, like: Tensor) -> dict[str, Any]:
    """A number as kernels take it. A float64 goes by memory, for as a number it would reach them as float32."""
    if compute_dtype(like.dtype) == torch.float64:
        return {f"{name}s": torch.full((), value, dtype=torch.float64, device=like.device), name: 1.0}
    return {f"{name}s": None, name: value}


def tau_of(tau: Tau, x: Tensor) -> dict[str, Any]:
    """tau as a pointer or else as a number, and whether each row has its own."""
    if not isinstance(tau, Tensor):
        return number("tau", tau, x) | {"EACH_TAU": False}
    taus, each_row = each(reference.checked(tau, compute_dtype(x.dtype)), x.shape[:-1])
    return {"taus": taus, "tau": 1.0, "EACH_TAU": each_row}


def launch(kernel: Any, cut: Tile, named: dict[str, Any]) -> None:
    """Queue a kernel on the device of its tensors, with those of the named arguments that it takes."""
    named = named | cut.named
    with torch.cuda.device_of(next(x for x in named.values() if isinstance(x, Tensor))):
        kernel[(cut.programs,)](**{x: named[x] for x in parameters(kernel) if x in named}, num_warps=cut.warps)


def parameters(kernel: Any) -> list[str]:
    """The names of a kernel's parameters: Triton's own list, or else those of the Python function."""
    return getattr(kernel, "arg_names", None) or list(inspect.signature(kernel.fn).parameters)
