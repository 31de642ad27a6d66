"""Indices of a law at a temperature: one with its log-probability and the law's entropy, or k without replacement.

In eager code with a fast body one pass over the logits makes all three numbers, and one pass the gradient. Elsewhere
(plain torch, torch.compile, export, torch.func, DTensors) the index is an operator without a gradient, and what the law
says about it is a formula in torch's own operations, which have every derivative.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, is_grad_enabled

from softdraw import kernels
from softdraw.arguments import Draw, Tau, compute_dtype
from softdraw.kernels.pass_reference import Rows
from softdraw.numerics import log_probs, masked, times
from softdraw.operators.draws import batched
from softdraw.operators.operator import Operation
from softdraw.operators.passes import DTYPES
from softdraw.private_torch import function_modes, has_storage, quick_apply
from softdraw.seeds import seed_for
from softdraw.tensors import PLAIN, is_plain

_INPUTS = "Tensor logits, Tensor seed, Tensor? rows, Tensor? mask, Tensor temperature, SymInt samples, SymInt col_start"


def drawn(
    x: Tensor,
    seed: int | Tensor | None,
    generator: Any,
    rows: Tensor | None,
    mask: Tensor | None,
    temperature: Tau,
    samples: int,
    col_start: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The index ``(samples, *batch)``, its log-probability without temperature, and that law's entropy, ``batch``."""
    body = _fused(x, rows, mask, temperature) if samples else None
    if body is None:
        at = tempered.seeded(seed, generator, x.detach(), rows, mask, temperature, samples, col_start)
        return at, *said(x, mask, at)
    key = seed_for(x, seed, generator)
    at, chosen, numbers = body.drawn((x, temperature, key, rows, mask, col_start), samples)
    wide = compute_dtype(x.dtype)
    log_prob, entropy = (chosen - numbers[..., 0] - numbers[..., 1]).to(wide), (0 - numbers[..., 2]).to(wide)
    if x.requires_grad and is_grad_enabled():
        return at, *_record((log_prob, entropy, at, numbers, mask), x)
    return at, log_prob, entropy


def _fused(x: Tensor, *others: Any) -> Any:
    """The body that does all in one pass, where there is one and no mode has to see torch's functions."""
    if not is_plain(x) or x.dtype not in DTYPES or function_modes():
        return None
    if any(isinstance(t, Tensor) and type(t) not in PLAIN for t in others):
        return None
    body = kernels.body_for(x)
    return body if hasattr(body.passes, "drawn_backward") else None


def said(x: Tensor, mask: Tensor | None, at: Tensor) -> tuple[Tensor, Tensor]:
    """log p of the indices ``(samples, *batch)`` and the entropy, ``batch``, of p = softmax(x) over what is allowed.

    A row whose index is -1 has NaN where its logits do, and -inf and 0 where nothing is allowed.
    """
    x = masked(x.to(compute_dtype(x.dtype)), mask)
    top = x.detach().amax(-1)
    spoil = torch.where(top.isnan() | (top == math.inf), math.nan, 1.0).to(x.dtype)
    log_p = log_probs(x)
    chosen = log_p.expand(at.shape[0], *log_p.shape).gather(-1, at.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    return chosen * spoil, 0 - times(log_p.exp(), log_p).sum(-1) * spoil


class _Recorded(torch.autograd.Function):
    """Hands on numbers that are already made, with their gradient."""

    @staticmethod
    def forward(ctx: Any, what: tuple, x: Tensor) -> tuple[Tensor, Tensor]:
        log_prob, entropy, at, numbers, mask = what
        ctx.save_for_backward(x, at, numbers, mask)
        return log_prob, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        x, at, numbers, mask = ctx.saved_tensors
        if is_grad_enabled() or not all(has_storage(g) and is_plain(g) for g in grads):
            return None, _by_formula(x, at, mask, grads)
        arriving = torch.cat((grads[0], grads[1].unsqueeze(0)))
        run = kernels.body_for(x).passes.drawn_backward
        return None, run(Rows(x, mask=mask, category=at), arriving, numbers, "none", (True, False))[0]


_record = quick_apply(_Recorded, _Recorded.backward)


def _by_formula(x: Tensor, at: Tensor, mask: Tensor | None, grads: tuple[Tensor, ...]) -> Tensor:
    """Through a view of the logits, so that what they were made from is not followed here."""
    with torch.enable_grad():
        x = x.view_as(x)
        numbers = said(x, mask, at)
    return torch.autograd.grad(numbers, x, grads, create_graph=is_grad_enabled())[0]


# The index alone, and several in order: no gradient.


def _tempered(
    logits: Tensor, seed: Tensor, rows: Any, mask: Any, temperature: Tau, samples: int, col_start: int
) -> Tensor:
    return kernels.body_for(logits).tempered((logits, temperature, seed, rows, mask, col_start), samples)


def _tempered_fake(logits: Tensor, seed: Tensor, rows: Any, mask: Any, t: Tau, samples: int, col_start: int) -> Tensor:
    return logits.new_empty((samples, *logits.shape[:-1]), dtype=torch.int64)


def _tempered_vmap(info: Any, in_dims: tuple, *inputs: Any) -> tuple[Tensor, int]:
    return tempered(*_mapped(info, in_dims, inputs)), 1


tempered = Operation("tempered_index", f"({_INPUTS}) -> Tensor", _tempered, _tempered_fake, _tempered_vmap)


def _topk(
    logits: Tensor, seed: Tensor, rows: Any, mask: Any, temperature: Tau, samples: int, col_start: int, k: int
) -> Tensor:
    return kernels.body_for(logits).topk((logits, temperature, seed, rows, mask, col_start), samples, k)


def _topk_fake(
    logits: Tensor, seed: Tensor, rows: Any, mask: Any, t: Tau, samples: int, col_start: int, k: int
) -> Tensor:
    return logits.new_empty((samples, *logits.shape[:-1], k), dtype=torch.int64)


def _topk_vmap(info: Any, in_dims: tuple, *inputs: Any) -> tuple[Tensor, int]:
    return topk(*_mapped(info, in_dims, inputs)), 1


topk = Operation("gumbel_topk", f"({_INPUTS}, SymInt k) -> Tensor", _topk, _topk_fake, _topk_vmap)


def _mapped(info: Any, in_dims: tuple, inputs: tuple) -> tuple:
    """The inputs with the mapped dimension in front of each batch."""
    logits, seed, rows, mask, temperature, samples, col_start, *k = inputs
    dims = (in_dims[0], in_dims[4], *in_dims[1:4])
    logits, temperature, seed, rows, mask, _ = batched(
        info, dims, Draw(logits, temperature, seed, rows, mask, col_start)
    )
    return logits, seed, rows, mask, temperature, samples, col_start, *k
