"""The operations on a GPU, fused in Triton: noise is made where it is used, and a row is read once and written once.

What is here brings arguments to the form of ``device.draw`` and picks tiles: several narrow rows to a program, a row of
up to 2^14 columns in one program's registers, and wider rows in splits that ``device.combine`` brings together.
Everything is queued on the device's current stream, memory comes from torch's allocator, and no value is read back:
draws can be captured in a CUDA graph. Results are those of ``reference``, to a few units in the last place.
"""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from softdraw.arguments import Tau, compute_dtype
from softdraw.kernels import reference
from softdraw.kernels.triton import device
from softdraw.kernels.triton.layout import Layout, each, flat, layout_of, noise_tile, tile

_PARTS = 128  # splits that ``combine`` takes at a time
_T = {torch.float32: tl.float32, torch.float64: tl.float64}


def soft(logits: Tensor, tau: Tau, seed: Tensor | None, rows: Tensor | None, mask: Tensor | None) -> Tensor:
    """The relaxed draw: rows of the simplex, in the dtype and layout of the logits."""
    return _dense("soft", logits, None, tau, seed, rows, mask)


def hard(logits: Tensor, tau: Tau, seed: Tensor | None, rows: Tensor | None, mask: Tensor | None) -> Tensor:
    """The exact draw as a one-hot, in the dtype and layout of the logits; tau is checked, and moves no draw."""
    if isinstance(tau, Tensor):
        reference.checked(tau, compute_dtype(logits.dtype))
    return _dense("hard", logits, None, 1.0, seed, rows, mask)


def hard_backward(
    logits: Tensor, grad: Tensor, tau: Tau, seed: Tensor | None, rows: Tensor | None, mask: Tensor | None
) -> Tensor:
    """The straight-through gradient for the logits: that of the soft draw with the same noise, made again here."""
    if tile(1, logits.shape[-1], logits.dtype).splits > 1:  # a row that no program holds
        return soft_backward(soft(logits, tau, seed, rows, mask), grad, tau)
    return _dense("hard_backward", logits, grad, tau, seed, rows, mask)


def index(logits: Tensor, seed: Tensor, rows: Tensor | None, mask: Tensor | None, samples: int) -> Tensor:
    """The exact draw as an index: int64 of shape ``(samples, *batch)``; sample i is noise stream i."""
    out = torch.empty((samples, *logits.shape[:-1]), dtype=torch.int64, device=logits.device)
    if not out.numel():
        return out
    form = layout_of([logits] * 3, mask)
    if form is None:
        return index(logits.contiguous(), seed, rows, None if mask is None else mask.contiguous(), samples)
    _draw("index", form, out, logits, None, 1.0, seed, rows, mask, samples)
    return out


def soft_backward(y: Tensor, grad: Tensor, tau: Tau) -> Tensor:
    """The gradient for the logits of a soft draw ``y``."""
    out = torch.empty_like(y)
    if not out.numel():
        return out
    form = layout_of([out, y, grad], None)
    if form is None:
        return out.copy_(soft_backward(y.contiguous(), grad.contiguous(), tau))
    rows, cols = y.shape[:-1].numel(), y.shape[-1]
    cut, dtype = tile(rows, cols, y.dtype), compute_dtype(y.dtype)
    taus, number, each_tau = _tau(tau, y)
    constants = {"T": _T[dtype], "EACH_TAU": each_tau, **cut.constants, **form.constants}
    rest = (number, rows, cols, form.inner, cut.splits, *form.strides[:9])
    dots = None
    if cut.splits > 1:
        parts = torch.empty((rows, cut.splits), dtype=dtype, device=y.device)
        _launch(device.jacobian, cut.programs, cut.warps, (out, y, grad, taus, parts, *rest), OP="part", **constants)
        dots = parts.sum(-1)
    _launch(device.jacobian, cut.programs, cut.warps, (out, y, grad, taus, dots, *rest), OP="whole", **constants)
    return out


def gumbel(seed: Tensor, rows: Tensor, cols: int, col_start: int, stream: Tensor, dtype: torch.dtype) -> Tensor:
    """Standard Gumbel noise of shape ``(..., cols)``."""
    batch = torch.broadcast_shapes(seed.shape, rows.shape)[:-1]
    out = torch.empty((*batch, cols), dtype=dtype, device=rows.device)
    if out.numel():
        cut = noise_tile(batch.numel(), cols + col_start % 4)
        (seeds, each_seed), (streams, each_stream) = each(seed, batch), each(stream, batch)
        arguments = (out, seeds, flat(rows, batch), streams, batch.numel(), cols, col_start, cut.splits)
        constants = {"T": _T[dtype], "EACH_SEED": each_seed, "EACH_STREAM": each_stream, **cut.constants}
        _launch(device.noise, cut.programs, cut.warps, arguments, **constants)
    return out


def _dense(
    op: str,
    logits: Tensor,
    grad: Tensor | None,
    tau: Tau,
    seed: Tensor | None,
    rows: Tensor | None,
    mask: Tensor | None,
) -> Tensor:
    """An operation whose result has the shape and layout of the logits."""
    out = torch.empty_like(logits)
    if not out.numel():
        return out
    form = layout_of([out, logits, logits if grad is None else grad], mask)
    if form is None:  # rare: a permuted batch of three dimensions or more
        copies = (None if x is None else x.contiguous() for x in (grad, mask))
        grad, mask = copies
        return out.copy_(_dense(op, logits.contiguous(), grad, tau, seed, rows, mask))
    _draw(op, form, out, logits, grad, tau, seed, rows, mask, 1)
    return out


def _draw(
    op: str,
    form: Layout,
    out: Tensor,
    logits: Tensor,
    grad: Tensor | None,
    tau: Tau,
    seed: Tensor | None,
    rows: Tensor | None,
    mask: Tensor | None,
    samples: int,
) -> None:
    """Launch ``device.draw`` on whole rows; or on splits, and again to write a dense result with what they came to."""
    batch, dtype = logits.shape[:-1], compute_dtype(logits.dtype)
    draws = batch.numel() * samples
    cut = tile(draws, logits.shape[-1], logits.dtype)
    taus, number, each_tau = _tau(tau, logits)
    seeds, each_seed = (None, False) if seed is None else each(seed, batch)
    inputs = (logits, grad, None if mask is None else mask.view(torch.uint8), seeds)
    inputs = (*inputs, None if rows is None else flat(rows, batch), taus)
    sizes = (batch.numel(), logits.shape[-1], form.inner, cut.splits)
    flags = {"T": _T[dtype], "EACH_SEED": each_seed, "EACH_TAU": each_tau, "ONCE": samples == 1}
    constants = {**flags, **cut.constants, **form.constants}

    def launch(op: str, written: Tensor | None, statistics: tuple) -> None:
        arguments = (written, *inputs, *statistics, number, draws, *sizes, *form.strides)
        _launch(device.draw, cut.programs, cut.warps, arguments, OP=op, **constants)

    if cut.splits == 1:
        launch(op, *((None, (None, None, out)) if op == "index" else (out, (None, None, None))))
        return
    parts = _statistics(draws * cut.splits, dtype, logits.device)
    whole = _statistics(draws, dtype, logits.device)
    if op == "index":
        whole = (*whole[:2], out)
    launch("part", None, parts)
    arguments = (*parts, taus, *whole, number, sizes[0], cut.splits)
    _launch(device.combine, draws, 4, arguments, BLOCK=_PARTS, EACH_TAU=each_tau)
    if op != "index":
        launch(op, out, whole)


def _statistics(n: int, dtype: torch.dtype, where: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Room for the maximum, the sum of exponentials and the argmax of n pieces."""
    top, total = torch.empty((2, n), dtype=dtype, device=where)
    return top, total, torch.empty(n, dtype=torch.int64, device=where)


def _launch(kernel: Any, programs: int, warps: int, arguments: tuple, **constants: Any) -> None:
    """Queue a kernel on the device of its tensors."""
    with torch.cuda.device_of(next(x for x in arguments if x is not None)):
        kernel[(programs,)](*arguments, num_warps=warps, **constants)


def _tau(tau: Tau, x: Tensor) -> tuple[Tensor | None, float, bool]:
    """tau as a pointer or else as a number, and whether each row has its own."""
    dtype = compute_dtype(x.dtype)
    if isinstance(tau, Tensor):
        taus, each_row = each(reference.checked(tau, dtype), x.shape[:-1])
        return taus, 1.0, each_row
    if dtype == torch.float64:  # a number would reach the kernel as float32
        return torch.full((), tau, dtype=dtype, device=x.device), 1.0, False
    return None, tau, False
