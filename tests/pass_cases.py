"""What the passes are compared on, and how far they may be from their formulas.

How "within 4 ulp" is measured. The truth is the formula in float64 of the same logits. A result is a sum of terms, and
its error is that of the largest: so the unit is the last place, in the dtype of the computation, of the sum of the
terms' magnitudes. In it a probability has the weight p (1 + |log p|), because the rounding of log p, as torch rounds it
too, moves p by so much. A gradient of 16 bits is rounded once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import kernel_cases
import torch
from torch import Tensor

from softdraw.arguments import compute_dtype
from softdraw.kernels import native, pass_reference
from softdraw.kernels.pass_reference import Rows

ULP = 4


class Operation(NamedTuple):
    """What a pass takes beside logits, and how large the terms are that its value and its gradients sum."""

    numbers: tuple
    sizes: Callable[[Rows], tuple[Tensor, ...]]
    complete: Callable[[Rows, torch.Generator], Rows] = lambda rows, _: rows


def weight(log_p: Tensor) -> tuple[Tensor, Tensor]:
    """The size of p, that of its rounding included, and |log p|, 0 where p is 0."""
    size = log_p.masked_fill(log_p == -math.inf, 0).abs()
    return log_p.exp() * (1 + size), size


def entropy_sizes(rows: Rows) -> tuple[Tensor, ...]:
    p, size = weight(pass_reference.log_probs_of(rows))
    value = (p * size).sum(-1)
    return value, p * (1 + size + value.unsqueeze(-1))


def index_sizes(rows: Rows) -> tuple[Tensor, ...]:
    p, size = weight(pass_reference.log_probs_of(rows))
    category = rows.category.masked_fill(~(rows.category >= 0), 0).unsqueeze(-1)
    return 1 + size.gather(-1, category).squeeze(-1), p + torch.zeros_like(p).scatter(-1, category, 1)


def nll_sizes(rows: Rows) -> tuple[Tensor, ...]:
    p, size = weight(pass_reference.log_probs_of(rows))
    t = rows.other
    return (t * (1 + size)).sum(-1), p * t.sum(-1, keepdim=True) + t, 1 + size


def kl_sizes(rows: Rows) -> tuple[Tensor, ...]:
    p, p_size = weight(pass_reference.log_probs_of(rows))
    q, q_size = weight(pass_reference.log_probs_of(Rows(rows.other, mask=rows.other_mask)))
    value = (p * (1 + p_size + q_size)).sum(-1)
    return value, p * (1 + p_size + q_size + value.unsqueeze(-1)), p + q


def with_category(rows: Rows, g: torch.Generator) -> Rows:
    """A category for each row that its mask allows; one out of range where the row does not count."""
    category = pass_reference.masked(torch.rand(rows.x.shape, generator=g), rows.mask).argmax(-1)
    return rows._replace(category=category if rows.keep is None else category.masked_fill(~rows.keep, -7))


def with_target(rows: Rows, g: torch.Generator) -> Rows:
    """A distribution for each row, with zeros where the mask forbids."""
    t = pass_reference.masked(torch.randn(rows.x.shape, generator=g, dtype=torch.float64), rows.mask).softmax(-1)
    return rows._replace(other=t.to(rows.x.dtype))


def with_law(rows: Rows, g: torch.Generator) -> Rows:
    """Logits of a second law: of one law for all, or of a law for each row with the mask of the first."""
    shape = rows.x.shape
    if int(torch.randint(2, (), generator=g)):
        return rows._replace(other=torch.randn(shape[-1:], generator=g).to(compute_dtype(rows.x.dtype)))
    return rows._replace(other=3 * torch.randn(shape, generator=g).to(rows.x.dtype), other_mask=rows.mask)


OPERATIONS = {
    "entropy": Operation((-1.0, 0.0), entropy_sizes),
    "index_nll": Operation((), index_sizes, with_category),
    "nll": Operation((0.5, native.CHECKS["Distribution"], 0.01), nll_sizes, with_target),
    "kl": Operation((), kl_sizes, with_law),
}


def rows_of(case: kernel_cases.Case, keep: bool, operation: Operation) -> Rows:
    kept = torch.arange(math.prod(case.logits.shape[:-1])).view(case.logits.shape[:-1]) % 3 > 0 if keep else None
    g = torch.Generator().manual_seed(int(case.seed))
    return operation.complete(Rows(case.logits, mask=case.mask, keep=kept), g)


def plain_rows(name: str, x: Tensor) -> Rows:
    """These logits, and what else the operation reads."""
    return OPERATIONS[name].complete(Rows(x), torch.Generator().manual_seed(2))


def wide(rows: Rows) -> Rows:
    """The same operands in float64, for the truth."""
    operands: list[Any] = [t.double() if t is not None and t.is_floating_point() else t for t in rows]
    return Rows(*operands)


def leaves_of(rows: Rows) -> list[Tensor]:
    """The operands that may have a gradient."""
    return [rows.x] if rows.other is None else [rows.x, rows.other]


def assert_within(got: Tensor, true: Tensor, size: Tensor, ulp: int = ULP) -> None:
    """``ulp`` units of the compute dtype, in float64 twice as many, and the rounding of a result of 16 bits."""
    compute, true = compute_dtype(got.dtype), true.to(got.dtype).double()  # inf where the dtype ends
    allowed = ulp * (1 + (compute == torch.float64)) * torch.finfo(compute).eps * size + torch.finfo(got.dtype).tiny
    if got.dtype != compute:
        allowed = allowed + torch.finfo(got.dtype).eps * true.abs()
    assert torch.equal(got.isnan(), true.isnan())
    different = (got.double() - true).nan_to_num(0).abs()
    assert bool((different <= allowed.nan_to_num(0)).all()), (different / allowed).max()


def compare(run: Callable, name: str, rows: Rows, made: tuple, gradient: Tensor, ulp: int = ULP) -> None:
    """The value that was ``made`` and its gradients, which ``run`` makes, against the formula in float64."""
    operation, (out, saved), truth = OPERATIONS[name], made, wide(rows)
    kept = torch.ones_like(out, dtype=torch.bool) if rows.keep is None else rows.keep
    assert not bool(out[~kept].any())
    leaves = [t.detach().requires_grad_() for t in leaves_of(truth)]
    true = getattr(pass_reference, name)(Rows(*leaves, *truth[len(leaves) :]), *operation.numbers)
    value_size, *sizes = operation.sizes(truth)
    assert_within(out[kept], true.detach()[kept], value_size[kept], ulp)
    grad = gradient.sum(-1).to(out.dtype).masked_fill(~kept, 0)  # reductions give rows that do not count nothing
    got = run(f"{name}_backward", rows, grad, saved, "none", (True, len(leaves) > 1), *operation.numbers)
    want = torch.autograd.grad(true, leaves, grad.double())
    for leaf, dx, true_dx, size in zip(leaves_of(rows), got, want, sizes, strict=False):
        assert dx.dtype == leaf.dtype
        assert dx.shape == leaf.shape
        bound = grad.double().abs().unsqueeze(-1) * size
        if leaf.shape != size.shape:  # the sum over the rows that share it is one more rounding for each of them
            bound = bound.sum_to_size(leaf.shape) * (1 + math.log2(1 + grad.numel()))
        assert_within(dx, true_dx, bound, ulp)
