"""A linear layer and a draw in one, whose categories are split over ranks: each has some rows of the weight.

Every rank has the same x, and makes the tiles of its own categories. Then the ranks tell each other what a row carries
(``operators.linear``), and in the backward pass the sums over categories that the gradient of the rule has.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable
from torch.compiler import is_compiling
from torch.distributed import ProcessGroup

from softdraw.arguments import COLUMN_MAX, KernelRule, check_layer, compute_dtype, layer_dtype, row_ids
from softdraw.distributed import collectives, merge
from softdraw.distributed.blocks import prepare, prepare_key, prepare_tau
from softdraw.distributed.rules import HasKernel, checked_kernel
from softdraw.kernels.tile_reference import LOGIT, SCORE, TOP, TOTAL
from softdraw.operators.linear import Draws, Layer, in_batch, linear, result, with_missing
from softdraw.operators.linear_backward import Across, add_gradients
from softdraw.operators.linear_sums import Arriving, Sums, blocks


class ShardedLinearDraw(NamedTuple):
    """What :func:`softdraw.distributed.linear_draw` returns, equal on all ranks."""

    value: Tensor | None  # (*batch, V); None without a codebook
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]  (tuple.index, which nobody calls here)
    log_prob: Tensor


def linear_draw(
    x: Tensor,
    weight: Tensor,
    col_start: int,
    group: ProcessGroup | None = None,
    bias: Tensor | None = None,
    codebook: Tensor | None = None,
    *,
    rule: HasKernel | None = None,
    seed: int | Tensor,
    rows: int | Tensor = 0,
    mask: Tensor | None = None,
) -> ShardedLinearDraw:
    r"""The draw of :func:`softdraw.linear_draw` from a layer whose categories are split over ranks.

    .. math:: k \sim \mathrm{softmax}(\theta), \quad \theta = W x + b, \qquad v = C_k, \quad \ell = \log p_k

    Args:
        x: ``(*batch, D)``, the same on every rank.
        weight: this rank's rows of W, ``(n, D)``. n may differ between ranks, and may be 0.
        col_start: the index of its first category in the whole weight.
        group: the ranks that hold the weight; default: all.
        bias: this rank's part of b, ``(n,)``.
        codebook: this rank's rows of C, ``(n, V)``.
        rule: ``ZGR()`` (the default), ``StraightThrough(tau)`` or ``StraightThroughGumbel(tau)``.
        seed, rows: as for :func:`softdraw.distributed.gumbel_softmax`; the same on every rank.
        mask: bool, True = allowed, broadcasts to ``(*batch, n)``: this rank's categories.

    Returns:
        ``ShardedLinearDraw(value, index, log_prob)``, as from :func:`softdraw.linear_draw` and the same on every rank.
        One all-gather of 20 bytes a row and rank (40 for float64), and with a codebook one all-reduce of the value,
        V numbers a row: the rank that owns the category has its code.

    Gradient:
        That of :func:`softdraw.linear_draw`, of each block on its rank. One all-reduce of 4 bytes a row (the other two
        rules: one all-gather of 12), and where x has a gradient one all-reduce of it, D numbers a row, as of every
        layer that is split over its outputs. It cannot be differentiated again.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed. NotImplementedError under
        torch.compile.

    Example:
        >>> weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # this rank's: here the only one, with all
        >>> value, index, log_prob = softdraw.distributed.linear_draw(torch.ones(2, 2), weight, 0, seed=0)
        >>> index, log_prob
        (tensor([2, 2]), tensor([-0.5514, -0.5514]))

    Source:
        Wijmans et al. (2025), "Cut your losses in large-vocabulary language models"; each rule names its own.
    """
    check_layer(x, weight, bias, codebook, least=0, plain=True)
    batch, dtype = x.shape[:-1], layer_dtype(x)
    logits = torch.empty((), dtype=dtype, device=x.device).expand(*batch, len(weight))  # without their memory
    own = prepare(logits, col_start, group, mask)
    kernel = KernelRule("zgr") if rule is None else checked_kernel(rule)
    seed, ids = prepare_key(own, seed, rows)
    ids = row_ids(batch, x.device) if ids is None else ids
    part = Part(
        x,
        weight,
        bias,
        codebook,
        seed,
        ids,
        None if mask is None else own.mask,
        prepare_tau(kernel.tau, own),
        col_start,
        dtype,
        checked_name(kernel),
        own.group,
    )
    return ShardedLinearDraw(*drawn(part))


class Part(NamedTuple):
    """One rank's part of a layer and draw, after a check of each argument."""

    x: Tensor  # (*batch, D)
    weight: Tensor
    bias: Tensor | None
    codebook: Tensor | None
    seed: Tensor  # one, or (*batch, 1)
    rows: Tensor  # (*batch, 1)
    mask: Tensor | None  # (*batch, n)
    tau: Tensor  # one, or (*batch, 1)
    col_start: int
    dtype: torch.dtype  # of the logits and the value
    rule: str
    group: ProcessGroup


def checked_name(kernel: KernelRule) -> str:
    """The formula of the rule, where it needs no more than passes over blocks of logits."""
    if kernel.name not in ("zgr", "straight_through", "gumbel_rao"):
        raise TypeError(
            "rule must be ZGR, StraightThrough or StraightThroughGumbel for a layer and draw in one, got the formula "
            f"of {kernel.name}: for another, make the block of logits and call softdraw.distributed.draw"
        )
    return kernel.name


def drawn(part: Part) -> tuple[Tensor | None, Tensor, Tensor]:
    """Value, index and log-probability, each with the shape of the batch."""
    if is_compiling():
        raise NotImplementedError(
            "a layer whose weight is split over ranks and its draw do not compile yet: call linear_draw outside of "
            "torch.compile, or make the logits and draw from them"
        )
    batch = part.x.shape[:-1]
    x = part.x.reshape(-1, part.x.shape[-1])
    seed, tau = (t.reshape(-1, 1) if t.dim() else t for t in (part.seed, part.tau))
    flat = _filled(part._replace(x=x, seed=seed, rows=part.rows.reshape(-1, 1), tau=tau))
    value, index, log_prob = _Drawn.apply(*flat)  # pyright: ignore
    return None if value is None else in_batch(value, batch), in_batch(index, batch), in_batch(log_prob, batch)


def _filled(part: Part) -> Part:
    """The part, or of a rank without categories one that has a forbidden one, in a column that no draw gives."""
    if len(part.weight):
        return part
    one = {
        name: None if t is None else torch.cat((t, t.new_zeros(1, *t.shape[1:])))
        for name, t in {"weight": part.weight, "bias": part.bias, "codebook": part.codebook}.items()
    }
    mask = torch.zeros(len(part.x), 1, dtype=torch.bool, device=part.x.device)
    return part._replace(**one, mask=mask, col_start=COLUMN_MAX - 1)


class _Drawn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor | None, Tensor, Tensor]:
        part = Part(*inputs)
        x, weight, bias, codebook, seed, rows, mask, _, *how = inputs
        with torch.autocast(x.device.type, enabled=False):
            numbers, column = linear(x, weight, bias, seed, rows, mask, part.col_start, part.dtype)
        numbers, column = _merged(numbers, column, part)
        index, log_prob, logsumexp = result(numbers, column, 0, part.dtype)
        own = index - part.col_start
        own = torch.where((index < 0) | (own < 0) | (own >= len(weight)), -1, own)
        value = None
        if codebook is not None:
            code = codebook[own.clamp_min(0)].to(part.dtype).masked_fill_((own < 0).unsqueeze(-1), 0)
            distributed.all_reduce(code, group=part.group)
            value = with_missing(code, index, log_prob)
        ctx.save_for_backward(*inputs[:8], own, logsumexp, value)
        ctx.how = how
        ctx.mark_non_differentiable(index)
        ctx.set_materialize_grads(False)
        return value, index, log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple:  # pyright: ignore[reportIncompatibleMethodOverride]
        *inputs, own, logsumexp, value = ctx.saved_tensors
        part, (u, _, g) = Part(*inputs, *ctx.how), grads
        wanted = list(ctx.needs_input_grad[:4])
        if u is None and g is None:
            return (None,) * 12
        with torch.autocast(part.x.device.type, enabled=False):
            made = _gradients(part, _Arriving(u, part.codebook, g, own, part.dtype, value), logsumexp, wanted)
        return (*(t if asked else None for t, asked in zip(made, wanted, strict=True)), *[None] * 8)


def _merged(numbers: Tensor, column: Tensor, part: Part) -> tuple[Tensor, Tensor]:
    """What a row carries over all ranks, from what it carries in the blocks."""
    wide = compute_dtype(part.dtype)
    said = [numbers[:, i].to(wide) for i in (SCORE, LOGIT, TOP, TOTAL)]
    score, logit, top, whole, at = collectives.gather((*said, column), part.group)
    index, best = merge.best(at, score)
    mine = (at == index) & (score == best)
    most, whole, _ = merge.shares(top, whole)
    chosen = torch.where(mine, logit, -math.inf).amax(0)
    return torch.stack([t.double() for t in (best, chosen, most, whole)], -1), index


def _gradients(part: Part, arriving: _Arriving, logsumexp: Tensor, wanted: list[bool]) -> tuple:
    layer = Layer(part.x, part.weight, part.bias, part.dtype)
    draws = Draws(part.seed, part.rows, part.mask, part.col_start)
    sums = Sums(layer, (wanted[0], wanted[1], wanted[2]))
    if any(wanted[:3]):
        add_gradients(layer, draws, arriving, logsumexp, part.rule, part.tau, sums, _Ranks(part.group))
    if wanted[0]:
        distributed.all_reduce(sums.x, group=part.group)
    return (*sums.all(), arriving.of_codebook() if wanted[3] else None)


class _Arriving(Arriving):
    """What arrives where the value is known, and its code perhaps on another rank."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given[:-1])
        self._value = given[-1]

    def at_index(self) -> Tensor:
        h = torch.zeros_like(self.index, dtype=self.wide).unsqueeze(-1)
        if self.u is not None:
            for rows in blocks(len(h)):
                h[rows] = (self._value[rows].to(h.dtype) * self.u[rows]).sum(-1, keepdim=True)
        return h


class _Ranks(Across):
    """The categories of a row are split over a group."""

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group

    def sums(self, each: Tensor) -> Tensor:
        return collectives.total((each,), self._group)[0]

    def means(self, top: Tensor, total: Tensor, weighted: Tensor, tau: Any) -> tuple[Tensor, Tensor, Tensor]:
        every = collectives.gather((top, total, weighted), self._group)
        most = every[0].amax(0)
        base = torch.where(most == -math.inf, 0, most)
        share = ((every[0] - base) / (1.0 if tau is None else tau)).exp()
        return most, (share * every[1]).sum(0), (share * every[2]).sum(0)
