"""Draws with a rule's gradient where the library has the rule as an operation: one pass forward and one backward.

Kept for the backward pass are the logits and the index of the sample, 8 bytes a row (of bits: the sample), and the
seed where the rule needs noise. Where a transform of torch.func or a dispatch mode must see the steps, and for rules
that are their formula alone, ``pathwise`` draws. A backward pass that is differentiated again takes the rule's formula.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, is_grad_enabled
from torch.compiler import is_compiling

from softdraw.arguments import Fields, KernelRule, Tau, compute_dtype, prepare_tau, row_ids, tau_tensor
from softdraw.kernels import reference
from softdraw.numerics import masked_for_draw, one_hot, two_categories
from softdraw.operators import draws, rules
from softdraw.operators.operator import Operation
from softdraw.private_torch import quick_apply
from softdraw.rules.pathwise import OneHots, Pathwise, attach, gradient
from softdraw.tensors import is_dtensor, is_plain


class Request(NamedTuple):
    """What is drawn: ``samples`` draws, ``(samples, *batch, ...)``, or one without that dimension (None)."""

    seed: Tensor
    rows: Tensor | None = None
    mask: Tensor | None = None
    samples: int | None = None
    value: Tensor | None = None  # the draws themselves


def draw_one_hots(rule: Pathwise, logits: Tensor, request: Request) -> Tensor:
    """``(samples, *batch, C)`` or ``(*batch, C)``: exact one-hots, or the value, with the gradient of the rule."""
    kernel, (seed, rows, mask, samples, value) = rule.kernel(), request
    if kernel is None or not _direct(logits):
        return _by_formula(rule, logits, request)
    if kernel.name == "gumbel_softmax":
        if value is not None or samples is not None:
            return _by_formula(rule, logits, request)
        return draws.gumbel_softmax_soft(logits, prepare_tau(kernel.tau, logits, logits.dim() - 1), seed, rows, mask, 0)
    if not (logits.requires_grad and is_grad_enabled()):
        return rules.hard_index(logits, seed, rows, mask, samples)[0] if value is None else value.clone()
    if is_compiling():
        return _OneHots.apply(logits, *request, _in_graph(kernel, logits), rule, kernel)
    return _quick_one_hots(logits, (*request, prepare_tau(kernel.tau, logits, logits.dim() - 1), rule, kernel))


def draw_with_index(rule: Pathwise, logits: Tensor, request: Request) -> tuple[Tensor, Tensor]:
    """One draw, and its category, which a draw of one-hots knows anyway: to find it again takes a pass over them."""
    kernel = rule.kernel()
    if kernel is None or kernel.name == "gumbel_softmax" or not is_plain(logits):
        y = draw_one_hots(rule, logits, request)
        return y, index_of(y.detach())
    if not (logits.requires_grad and is_grad_enabled()):
        return rules.hard_index(logits, *request[:4])
    at: list[Tensor] = []
    tau = prepare_tau(kernel.tau, logits, logits.dim() - 1)
    return _quick_one_hots(logits, (*request, tau, rule, kernel, at)), at[0]


def draw_bits(rule: Pathwise, theta: Tensor, request: Request) -> Tensor | None:
    """The same for bits, ``(samples, *batch)`` or ``batch``; None where they must be drawn as two categories."""
    kernel, (seed, rows, mask, samples, value) = rule.kernel(), request
    if kernel is None or kernel.name == "gumbel_softmax" or not _direct(theta) or seed.dim():
        return None
    if not (theta.requires_grad and is_grad_enabled()):
        return rules.bits(theta, seed, rows, mask, samples) if value is None else value.clone()
    tau = kernel.tau
    like = theta.unsqueeze(-1) if isinstance(tau, Tensor) else theta
    if is_compiling():
        return _Bits.apply(theta, *request, _in_graph(kernel, like), rule, kernel)
    if type(tau) is not float:
        tau = prepare_tau(tau, like, like.dim() - 1)
    return _quick_bits(theta, (*request, tau, rule, kernel))


def exact_one_hots(logits: Tensor, request: Request) -> Tensor:
    """Exact one-hots without a gradient; a row with NaN or +inf is NaN."""
    logits, (seed, rows, mask, samples, _) = logits.detach(), request
    if _direct(logits):
        return rules.hard_index(logits, seed, rows, mask, samples)[0]
    # The index alone is an operation that torch.func maps, and that knows DTensors.
    return reference.hard_index((logits, 1.0, seed, rows, mask, 0), samples, _index)[0]


def _index(draw: Fields, samples: int) -> Tensor:
    logits, _, seed, rows, mask, col_start = draw
    return draws.gumbel_max(logits, seed, rows, mask, samples, col_start)


def exact_bits(theta: Tensor, request: Request) -> Tensor | None:
    """Exact bits without a gradient; None where they must be drawn as two categories."""
    return rules.bits(theta, *request[:-1]) if _direct(theta) and not request.seed.dim() else None


def _direct(x: Tensor) -> bool:
    """Whether an operation may stand for the steps it is made of: nothing sees them, or a compiler that knows it."""
    return is_plain(x) or (is_compiling() and not is_dtensor(x))


def _in_graph(kernel: KernelRule, logits: Tensor) -> Tau | None:
    """tau as a tensor, since a number would become a constant of the graph; None for a rule that has none."""
    return None if kernel.name == "zgr" else tau_tensor(kernel.tau, logits, logits.dim() - 1)


def _by_formula(rule: Pathwise, logits: Tensor, request: Request) -> Tensor:
    seed, rows, mask, samples, value = request
    hard = exact_one_hots(logits, request) if value is None else value.detach()
    hard = hard.unsqueeze(0) if samples is None else hard
    x = masked_for_draw(logits.to(compute_dtype(logits.dtype)), mask).expand(hard.shape)
    y = attach(rule, OneHots, x, hard, seed, rows, value is None)
    return y.squeeze(0) if samples is None else y


# Both functions take the logits, the request, and tau, the rule and its kernel: in eager code in one tuple, since every
# input of a ``Function`` takes time, and one by one in a graph, which knows tensors that way alone. The backward pass
# returns None for each of them, as autograd allows.


class _OneHots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, *rest: Any) -> Tensor:
        run, (seed, rows, mask, samples, value, *how) = _as_called(rules.hard_index, rest)
        if value is None:
            y, index = run(logits, seed, rows, mask, samples)
        else:
            y, index = value.clone(), index_of(value)
        _save(ctx, logits, index, seed, rows, mask, samples, value, how[:3])
        if len(how) > 3:  # where the index is wanted beside the draw
            how[3].append(index)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple:
        def formula(grad: Tensor, logits: Tensor, index: Tensor, seed: Any, rows: Any, mask: Any) -> Tensor:
            hard = one_hot(index, logits.shape[-1], compute_dtype(logits.dtype))
            return _formula(ctx, logits, mask, seed, rows, hard, grad)

        return _backward(ctx, grad_outputs[0], rules.rule_backward, formula)


class _Bits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, theta: Tensor, *rest: Any) -> Tensor:
        run, (seed, rows, mask, samples, value, *how) = _as_called(rules.bits, rest)
        b = run(theta, seed, rows, mask, samples) if value is None else value.clone()
        _save(ctx, theta, b, seed, rows, mask, samples, value, how)
        return b

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple:
        def formula(grad: Tensor, theta: Tensor, b: Tensor, seed: Any, rows: Any, mask: Any) -> Tensor:
            both, hard = torch.stack((torch.zeros_like(grad), grad), -1), torch.stack((1 - b, b), -1)
            ids = None if rows is None else rows.unsqueeze(-1)
            return _formula(ctx, two_categories(_ordinary(theta), mask), None, seed, ids, hard, both)[..., 1]

        return _backward(ctx, grad_outputs[0], rules.bits_backward, formula)


_quick_one_hots = quick_apply(_OneHots, _OneHots.backward)
_quick_bits = quick_apply(_Bits, _Bits.backward)


def _as_called(operation: Operation, rest: tuple) -> tuple[Callable[..., Any], tuple]:
    """The operation, or its body in eager code, and the inputs of a function."""
    return (operation.body, rest[0]) if len(rest) == 1 else (operation, rest)


def _save(ctx: Any, x: Tensor, drawn: Tensor, seed: Any, rows: Any, mask: Any, samples: Any, value: Any, how: Any):
    """Keep what the backward pass needs: seed and row ids for rules with noise alone."""
    tau, ctx.rule, ctx.kernel = how
    ctx.samples, ctx.given = samples, value is not None
    ctx.tau = None if isinstance(tau, Tensor) else tau
    noise = (seed, rows) if ctx.kernel.noisy else (None, None)
    ctx.save_for_backward(x, drawn, *noise, mask, tau if ctx.tau is None else None)


def _backward(ctx: Any, grad: Tensor, operation: Operation, formula: Callable[..., Tensor]) -> tuple:
    x, drawn, seed, rows, mask, tau = ctx.saved_tensors
    tau, kernel = tau if ctx.tau is None else ctx.tau, ctx.kernel
    compiling, gap = is_compiling(), kernel.gap
    run = operation if compiling else operation.in_backward(grad)
    if compiling and kernel.name != "gapped":
        gap = None
    if run is None:
        dx = formula(grad, x, drawn, seed, rows, mask)
    else:
        dx = run(grad, x, drawn, tau, seed, rows, mask, kernel.name, gap, kernel.draws, ctx.given)
    dx = dx if ctx.samples is None else dx.sum(0)
    dx = dx if dx.dtype == x.dtype else dx.to(x.dtype)
    return dx, None, None, None, None, None, None, None, None


def _formula(
    ctx: Any, logits: Tensor, mask: Tensor | None, seed: Any, rows: Tensor | None, hard: Tensor, grad: Tensor
) -> Tensor:
    """The rule's formula, differentiable in the logits and in ``grad``."""
    x = masked_for_draw(logits.to(compute_dtype(logits.dtype)), mask)
    single = ctx.samples is None
    hard, grad = (hard.unsqueeze(0), grad.unsqueeze(0)) if single else (hard, grad)
    ids = row_ids(x.shape[:-1], x.device) if rows is None else rows
    dx = gradient(ctx.rule, OneHots(x.expand(hard.shape)), hard, grad, seed, ids.unsqueeze(0), not ctx.given)
    return dx.squeeze(0) if single else dx


def index_of(value: Tensor) -> Tensor:
    """The category of every one-hot; -1 for a row without one."""
    top, index = value.max(-1)
    return torch.where(top > 0, index, -1)


def _ordinary(x: Tensor) -> Tensor:
    """``x`` in a dtype that has an infinity."""
    return x if x.dtype.itemsize > 1 else x.to(compute_dtype(x.dtype))
