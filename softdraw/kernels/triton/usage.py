"""The passes of usage in Triton: a loss of the mean law of each group of rows, and its gradient.

A row is read once for its largest logit and its sum, once more for the sums over rows, of which each program makes a
part, and torch adds the parts up in float64, in one order. What is left are numbers of a group, in torch's operations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softdraw.arguments import compute_dtype
from softdraw.kernels import pass_reference
from softdraw.kernels.native import USAGE
from softdraw.kernels.pass_cpu import Gradients, Made, Wanted
from softdraw.kernels.pass_reference import Rows
from softdraw.kernels.triton import launching, usage_kernels
from softdraw.kernels.triton.layout import rule_tile

_STEPS = 16  # tiles of rows that a program adds up


def usage(rows: Rows, reduction: str, loss: int, grouped: bool) -> Made:
    """The loss of each group; largest logits with 1 / sum exp (x - largest), the slopes for the mean law, a divisor."""
    named, wide, groups = _operands(rows, grouped), compute_dtype(rows.x.dtype), _groups(rows, grouped)
    count, cols = named["rows"], named["cols"]
    kept = -(-2 * count // 16) * 16  # what follows begins at a whole line of memory
    saved = rows.x.new_zeros(kept + groups * cols + 1, dtype=wide)
    balance = loss == USAGE["Balance"] and rows.other is None
    named |= {"saved": saved, "chosen": rows.x.new_empty(count, dtype=torch.int32) if balance else None}
    law, picks = _sums(rows.x, named, groups, balance)
    if named["weight"] is None:
        total = law.new_full((groups,), named["group_rows"])
    else:
        total = named["weight"].view(groups, -1).sum(-1, dtype=torch.float64)
    q = law / _or_one(total).unsqueeze(-1)
    each, slopes = _loss(q, picks if rows.other is None else rows.other.double(), loss, torch.finfo(wide).tiny)
    there = (total != 0).view(groups if grouped else ())
    saved[kept:-1] = (slopes / _or_one(total).unsqueeze(-1)).view(-1)
    saved[-1] = _or_one(there.sum()) if reduction == "mean" else 1
    return pass_reference.reduced(each.to(wide).view(there.shape), there, None, reduction), saved


def usage_backward(
    rows: Rows, grad: Tensor, saved: Tensor, reduction: str, wanted: Wanted, loss: int, grouped: bool
) -> Gradients:
    """The gradient for x: g w p (s - sum p s), with the slopes s."""
    named, groups = _operands(rows, grouped), _groups(rows, grouped)
    out = rows.x.new_empty(rows.x.shape)
    grad = (grad / saved[-1]).contiguous()
    slopes = saved[saved.numel() - 1 - groups * named["cols"] :]
    named |= {"out": out, "saved": saved, "slopes": slopes, "grad": grad, "grad_rows": grad.numel()}
    if named["rows"]:
        cut = rule_tile(named["rows"], named["cols"], rows.x.dtype).by_row
        launching.launch(usage_kernels.backward, cut, named)
    return out, None


def _sums(x: Tensor, named: dict[str, Any], groups: int, balance: bool) -> tuple[Tensor, Tensor]:
    """The sums of w p over each group, (groups, K) in float64, and of w for what each row chose, or zeros."""
    count, cols, group_rows = named["rows"], named["cols"], named["group_rows"]
    if not count:
        nothing = x.new_zeros((groups, cols), dtype=torch.float64)
        return nothing, nothing
    launching.launch(usage_kernels.tops, rule_tile(count, cols, x.dtype).by_row, named)
    cut = rule_tile(group_rows, cols, x.dtype)
    chunks = -(-group_rows // (cut.rows * _STEPS))
    parts = x.new_empty((1 + balance, groups, chunks, cols), dtype=compute_dtype(x.dtype))
    named = named | {"laws": parts[0], "picks": parts[-1] if balance else None, "STEPS": _STEPS}
    named |= {"chunks": chunks, "pieces": cut.splits}
    launching.launch(usage_kernels.sums, cut._replace(programs=groups * chunks * cut.splits), named)
    sums = parts.sum(2, dtype=torch.float64)
    return sums[0], sums[-1]


def _loss(q: Tensor, chosen: Tensor, loss: int, tiny: float) -> tuple[Tensor, Tensor]:
    """The loss of each group's mean law and its slopes for that law, as ``pass_reference.usage`` has it."""
    k = q.shape[-1]
    if loss == USAGE["Diversity"]:
        log_q = q.clamp_min(tiny).log()
        used = (-(q * log_q).sum(-1, keepdim=True)).exp() / k
        return 1 - used.squeeze(-1), used * log_q  # and 1 more, which changes no p (s - sum p s)
    f = k * chosen / _or_one(chosen.sum(-1, keepdim=True))
    return (f * q).sum(-1), f.expand(q.shape)


def _operands(rows: Rows, grouped: bool) -> dict[str, Any]:
    """What a pass reads, as kernels name it."""
    x, _, mask, _, _, keep, weight = rows
    count, cols, dtype = x.shape[:-1].numel(), x.shape[-1], compute_dtype(x.dtype)
    if weight is not None or keep is not None:
        weight = pass_reference.weights(x.new_empty(x.shape[:-1], dtype=dtype), keep, weight).contiguous()
    return {
        "logits": x.resolve_neg().contiguous(),
        "mask": None if mask is None else mask.expand(x.shape).contiguous().view(torch.uint8),
        "keep": None if keep is None else keep.contiguous().view(torch.uint8),
        "weight": weight,
        "rows": count,
        "cols": cols,
        "group_rows": count // max(_groups(rows, grouped), 1),
        "T": launching.TYPES[dtype],
        "UNIT": 4 if cols % 4 == 0 else 1,
    }


def _groups(rows: Rows, grouped: bool) -> int:
    return rows.x.shape[0] if grouped else 1


def _or_one(total: Tensor) -> Tensor:
    return torch.where(total == 0, 1, total)
