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
from softdraw.operators.rules import Gradient
from softdraw.private_torch import quick_apply
from softdraw.rules.pathwise import OneHots, Pathwise, attach, gradient
from softdraw.seeds import keep_spare, seed_for, spare_seed
from softdraw.tensors import is_dtensor, is_plain, split_over_categories


class Request(NamedTuple):
    """What is drawn: ``samples`` draws, ``(samples, *batch, ...)``, or one without that dimension (None)."""

    seed: Tensor | None  # None, in a draw with a rule: one of torch's default generator
    rows: Tensor | None = None
    mask: Tensor | None = None
    samples: int | None = None
    value: Tensor | None = None  # the draws themselves


def draw_one_hots(rule: Pathwise, logits: Tensor, request: Request) -> Tensor:
    """``(samples, *batch, C)`` or ``(*batch, C)``: exact one-hots, or the value, with the gradient of the rule."""
    kernel, plain, (seed, rows, mask, samples, value) = rule.kernel(), is_plain(logits), request
    if not plain and split_over_categories(logits):
        return _split(rule, logits, request)
    if kernel is None or not (plain or _in_compiler(logits)):
        return _by_formula(rule, logits, request)
    if kernel.name == "gumbel_softmax":
        if value is not None or samples is not None:
            return _by_formula(rule, logits, request)
        seed, tau = _seed_of(logits, request), prepare_tau(kernel.tau, logits, logits.dim() - 1)
        return draws.gumbel_softmax_soft(logits, tau, seed, rows, mask, 0)
    wanted, spare = logits.requires_grad and is_grad_enabled(), seed is None and _spares(logits, plain, kernel)
    if seed is None:
        seed = spare_seed() if spare else seed_for(logits, None, None)
    if not wanted:
        y = rules.hard_index(logits, seed, rows, mask, samples)[0] if value is None else value.clone()
    elif plain:
        tau = prepare_tau(kernel.tau, logits, logits.dim() - 1)
        y = _quick_one_hots(logits, (seed, rows, mask, samples, value, tau, rule, kernel))
    else:
        y = _OneHots.apply(logits, seed, *request[1:], _in_graph(kernel, logits), rule, kernel)
    if spare:
        keep_spare(seed)
    return y


def draw_with_index(rule: Pathwise, logits: Tensor, request: Request) -> tuple[Tensor, Tensor]:
    """One draw, and its category, which a draw of one-hots knows anyway: to find it again takes a pass over them."""
    kernel = rule.kernel()
    if kernel is None or kernel.name == "gumbel_softmax" or not is_plain(logits):
        y = draw_one_hots(rule, logits, request)
        return y, index_of(y.detach())
    if not (logits.requires_grad and is_grad_enabled()):
        return rules.hard_index(logits, *request[:4])  # pyright: ignore[reportReturnType]
    at: list[Tensor] = []
    tau = prepare_tau(kernel.tau, logits, logits.dim() - 1)
    return _quick_one_hots(logits, (*request, tau, rule, kernel, at)), at[0]  # pyright: ignore[reportReturnType]


def draw_bits(rule: Pathwise, theta: Tensor, request: Request) -> Tensor | None:
    """The same for bits, ``(samples, *batch)`` or ``batch``; None where they must be drawn as two categories."""
    kernel, plain, (seed, rows, mask, samples, value) = rule.kernel(), is_plain(theta), request
    if kernel is None or kernel.name == "gumbel_softmax" or not (plain or _in_compiler(theta)):
        return None
    if seed is not None and seed.dim():
        return None
    wanted, spare = theta.requires_grad and is_grad_enabled(), seed is None and _spares(theta, plain, kernel)
    if seed is None:
        seed = spare_seed() if spare else seed_for(theta, None, None)
    if not wanted:
        b = rules.bits(theta, seed, rows, mask, samples) if value is None else value.clone()
    elif plain:
        like = theta.unsqueeze(-1) if isinstance(kernel.tau, Tensor) else theta
        tau = prepare_tau(kernel.tau, like, like.dim() - 1)
        b = _quick_bits(theta, (seed, rows, mask, samples, value, tau, rule, kernel))
    else:
        like = theta.unsqueeze(-1) if isinstance(kernel.tau, Tensor) else theta
        b = _Bits.apply(theta, seed, *request[1:], _in_graph(kernel, like), rule, kernel)
    if spare:
        keep_spare(seed)
    return b


def _split(rule: Any, logits: Tensor, request: Request) -> Tensor:
    """The draw from a DTensor that is split over its categories."""
    from softdraw.distributed import dtensor, rules

    _, rows, mask, samples, value = request
    if samples is not None or value is not None:
        name, got = ("sample_shape", samples) if value is None else ("value", tuple(value.shape))
        raise ValueError(
            f"{name} must be left out where logits is a DTensor split over its categories, got {got}: expand the "
            "logits, or redistribute them to a shard of another dimension or Replicate()"
        )
    return dtensor.draw(rules.checked_kernel(rule), logits, _seed_of(logits, request), rows, mask)


def exact_one_hots(logits: Tensor, request: Request) -> Tensor:
    """Exact one-hots without a gradient; a row with NaN or +inf is NaN."""
    logits, (seed, rows, mask, samples, _) = logits.detach(), request
    if split_over_categories(logits):
        from softdraw.distributed import dtensor

        return dtensor.one_hots(logits, samples, _seed_of(logits, request), rows, mask)
    if _direct(logits):
        return rules.hard_index(logits, seed, rows, mask, samples)[0]
    # The index alone is an operation that torch.func maps, and that knows DTensors.
    return reference.hard_index((logits, 1.0, seed, rows, mask, 0), samples, _index)[0]


def _index(draw: Fields, samples: int) -> Tensor:
    logits, _, seed, rows, mask, col_start = draw
    return draws.gumbel_max(logits, seed, rows, mask, samples, col_start)


def exact_bits(theta: Tensor, request: Request) -> Tensor | None:
    """Exact bits without a gradient; None where they must be drawn as two categories."""
    if not _direct(theta) or (request.seed is not None and request.seed.dim()):
        return None
    return rules.bits(theta, *request[:-1])


def _direct(x: Tensor) -> bool:
    """Whether an operation may stand for the steps it is made of: nothing sees them, or a compiler that knows it."""
    return is_plain(x) or _in_compiler(x)


def _in_compiler(x: Tensor) -> bool:
    return is_compiling() and not is_dtensor(x)


def _spares(x: Tensor, plain: bool, kernel: KernelRule) -> bool:
    """Whether nothing keeps the seed of a draw beyond the call, so that its memory may be used again."""
    return plain and x.is_cpu and not kernel.noisy


def _seed_of(x: Tensor, request: Request) -> Tensor:
    return seed_for(x, None, None) if request.seed is None else request.seed


def _in_graph(kernel: KernelRule, logits: Tensor) -> Tau | None:
    """tau as a tensor, since a number would become a constant of the graph; None for a rule that has none."""
    return None if kernel.name == "zgr" else tau_tensor(kernel.tau, logits, logits.dim() - 1)


def _by_formula(rule: Pathwise, logits: Tensor, request: Request) -> Tensor:
    seed, (_, rows, mask, samples, value) = _seed_of(logits, request), request
    hard = exact_one_hots(logits, request._replace(seed=seed)) if value is None else value.detach()
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
        run, call = (rules.hard_index.body, rest[0]) if len(rest) == 1 else (rules.hard_index, rest)
        seed, rows, mask, samples, value = call[:5]
        if value is None:
            y, index = run(logits, seed, rows, mask, samples)
        else:
            y, index = value.clone(), index_of(value)
        _save(ctx, logits, index, call[:8])
        if len(call) > 8:  # where the index is wanted beside the draw
            call[8].append(index)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple:
        return _backward(ctx, grad_outputs[0], rules.rule_backward, _one_hots_formula)


class _Bits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, theta: Tensor, *rest: Any) -> Tensor:
        run, call = (rules.bits.body, rest[0]) if len(rest) == 1 else (rules.bits, rest)
        seed, rows, mask, samples, value = call[:5]
        b = run(theta, seed, rows, mask, samples) if value is None else value.clone()
        _save(ctx, theta, b, call)
        return b

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple:
        return _backward(ctx, grad_outputs[0], rules.bits_backward, _bits_formula)


_quick_one_hots = quick_apply(_OneHots, _OneHots.backward)
_quick_bits = quick_apply(_Bits, _Bits.backward)


def _save(ctx: Any, x: Tensor, drawn: Tensor, call: tuple) -> None:
    """Keep what the backward pass needs: seed and row ids for rules with noise alone."""
    seed, rows, mask, samples, value, tau, rule, kernel = call
    noisy = kernel.noisy
    if type(tau) is float and mask is None and not noisy:
        ctx.save_for_backward(x, drawn)
    else:
        noise, learned = (seed, rows) if noisy else (None, None), tau if isinstance(tau, Tensor) else None
        ctx.save_for_backward(x, drawn, *noise, mask, learned)
        tau = None if learned is not None else tau
    ctx.how = samples, value is not None, tau, rule, kernel


def _backward(ctx: Any, grad: Tensor, operation: Gradient, formula: Callable[..., Tensor]) -> tuple:
    saved, (samples, given, number, _, kernel) = ctx.saved_tensors, ctx.how
    x, drawn, seed, rows, mask, tau = saved if len(saved) == 6 else (*saved, None, None, None, None)
    tau = tau if number is None else number
    run = operation if is_compiling() else operation.in_backward(grad)
    if run is None:
        dx = formula(ctx.how, grad, x, drawn, seed, rows, mask)
    elif run is operation:
        gap = None if is_compiling() and kernel.name != "gapped" else kernel.gap
        dx = run(grad, x, drawn, tau, seed, rows, mask, kernel.name, gap, kernel.draws, given)
    else:
        draw: Any = (x, tau, seed, rows, mask, 0)
        dx = operation.at_once(draw, grad, drawn, kernel, given)
    if samples is not None:
        dx = dx.sum(0)
    return dx if dx.dtype == x.dtype else dx.to(x.dtype), None, None, None, None, None, None, None, None


def _one_hots_formula(
    how: tuple, grad: Tensor, logits: Tensor, index: Tensor, seed: Any, rows: Any, mask: Any
) -> Tensor:
    hard = one_hot(index, logits.shape[-1], compute_dtype(logits.dtype))
    return _formula(how, logits, mask, seed, rows, hard, grad)


def _bits_formula(how: tuple, grad: Tensor, theta: Tensor, b: Tensor, seed: Any, rows: Any, mask: Any) -> Tensor:
    both, hard = torch.stack((torch.zeros_like(grad), grad), -1), torch.stack((1 - b, b), -1)
    ids = None if rows is None else rows.unsqueeze(-1)
    return _formula(how, two_categories(_ordinary(theta), mask), None, seed, ids, hard, both)[..., 1]


def _formula(
    how: tuple, logits: Tensor, mask: Tensor | None, seed: Any, rows: Tensor | None, hard: Tensor, grad: Tensor
) -> Tensor:
    """The rule's formula, differentiable in the logits and in ``grad``."""
    x = masked_for_draw(logits.to(compute_dtype(logits.dtype)), mask)
    samples, given, _, rule, _ = how
    single = samples is None
    hard, grad = (hard.unsqueeze(0), grad.unsqueeze(0)) if single else (hard, grad)
    ids = row_ids(x.shape[:-1], x.device) if rows is None else rows
    dx = gradient(rule, OneHots(x.expand(hard.shape)), hard, grad, seed, ids.unsqueeze(0), not given)
    return dx.squeeze(0) if single else dx


def index_of(value: Tensor) -> Tensor:
    """The category of every one-hot; -1 for a row without one."""
    top, index = value.max(-1)
    return torch.where(top > 0, index, -1)


def _ordinary(x: Tensor) -> Tensor:
    """``x`` in a dtype that has an infinity."""
    return x if x.dtype.itemsize > 1 else x.to(compute_dtype(x.dtype))
