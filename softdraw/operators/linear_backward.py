"""The backward pass of a linear layer and draw in one (``linear``): the gradients of the rules, over tiles."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from softdraw import kernels
from softdraw.arguments import compute_dtype
from softdraw.kernels import tile_reference
from softdraw.kernels.tile_reference import Law
from softdraw.numerics import masked
from softdraw.operators.linear import INPUTS, Draws, Layer, Tile, fast, tiles
from softdraw.operators.linear_sums import Arriving, Sums
from softdraw.operators.operator import Operation


def _backward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seed: Tensor,
    rows: Tensor,
    mask: Tensor | None,
    col_start: int,
    dtype: torch.dtype,
    codebook: Tensor | None,
    index: Tensor,
    logsumexp: Tensor,
    u: Tensor | None,
    g: Tensor | None,
    rule: str,
    tau: Tensor | None,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    layer, draws = Layer(x, weight, bias, dtype), Draws(seed, rows, mask, col_start)
    arriving = Arriving(u, codebook, g, index, dtype)
    sums = Sums(layer, (wanted[0], wanted[1], wanted[2]))
    if any(wanted[:3]):
        add_gradients(layer, draws, arriving, logsumexp, rule, tau, sums)
    of_codebook = x.new_empty(0)
    if wanted[3]:
        of_codebook = arriving.of_codebook()
    return (*sums.all(), of_codebook)


class Across:
    """Where sums over the categories become those of all: nothing to do where one process has them all."""

    def sums(self, each: Tensor) -> Tensor:
        """The sum of the numbers of every block."""
        return each

    def means(self, top: Tensor, total: Tensor, weighted: Tensor, tau: Any) -> tuple[Tensor, Tensor, Tensor]:
        """The largest score, the sum of exp((score - top) / tau) and that sum with weights, of all blocks."""
        return top, total, weighted


def add_gradients(
    layer: Layer,
    draws: Draws,
    arriving: Arriving,
    logsumexp: Tensor,
    rule: str,
    tau: Tensor | None,
    sums: Sums,
    across: Across = Across(),  # noqa: B008 (it holds nothing)
) -> None:
    """The gradients of the layer into ``sums``."""
    law = _law(logsumexp, compute_dtype(layer.dtype))
    if rule == "zgr" or arriving.of_log_prob_alone:
        _one_pass(layer, draws, arriving, law, sums, across)
    else:
        _two_passes(layer, draws, arriving, law, sums, rule, tau, across)


def _law(logsumexp: Tensor, wide: torch.dtype) -> Law:
    """p of the logits. The logsumexp is rounded to the dtype of the tile, and the scale makes up for that."""
    total = logsumexp.masked_fill(logsumexp == -math.inf, 0).unsqueeze(-1)
    top = total.to(wide)
    return Law(top, (top - total).exp().to(wide))


def _of(law: Law, tile: Tile) -> Law:
    top, scale, tau = law
    return Law(top[tile.rows], scale[tile.rows], _at(tau, tile.rows))


def _at(number: Any, rows: slice) -> Any:
    """The part for some rows of one number each; one number for all is its own."""
    return number[rows] if isinstance(number, Tensor) and number.dim() else number


def _one_pass(layer: Layer, draws: Draws, arriving: Arriving, law: Law, sums: Sums, across: Across) -> None:
    """ZGR, and every rule where only the log-probability has a gradient: p ((h - h_D) / 2 - g)."""
    less = arriving.at_index() / 2
    less = less if arriving.g is None else less + arriving.g
    total = torch.zeros_like(less)
    turn = (fast(layer.x.device, layer.dtype) or tile_reference).turn
    for tile in tiles(layer):
        mask = draws.of(tile).mask
        h = arriving.h(tile)
        v, in_rows = turn(tile.logits, h, mask, _of(law, tile), 0.5, less[tile.rows])
        total[tile.rows].add_(in_rows)
        sums.add(tile, v)
    sums.add_at(arriving.index, -across.sums(total))


def _two_passes(
    layer: Layer, draws: Draws, arriving: Arriving, law: Law, sums: Sums, rule: str, tau: Any, across: Across
) -> None:
    """Straight-through and straight-through Gumbel-softmax: q (h - <q, h>) / tau, and g (D - p) of the
    log-probability."""
    noisy = rule != "straight_through"
    relaxed, mean = _relaxed(layer, draws, arriving, noisy, tau, across)
    share, g = 1 / (1.0 if tau is None else tau), arriving.g
    for tile in tiles(layer):
        mask = draws.of(tile).mask
        z = _scores(tile, draws, noisy)
        h = arriving.h(tile)
        each = _at(share, tile.rows)
        v, _ = tile_reference.turn(z, h, mask, _of(relaxed, tile), each, mean[tile.rows] * each)
        if g is not None:
            p = tile_reference.weights(masked(tile.logits, mask), _of(law, tile))
            v = v.sub_(p.mul_(g[tile.rows]))
        sums.add(tile, v.to(layer.dtype))
    if g is not None:
        sums.add_at(arriving.index, g)


def _scores(tile: Tile, draws: Draws, noisy: bool) -> Tensor:
    """The logits of a tile in the compute dtype, a copy, with the noise of the draw where it is wanted."""
    key = draws.of(tile)
    z = masked(tile.logits.to(compute_dtype(tile.logits.dtype), copy=True), key.mask)
    if not noisy:
        return z
    gumbel = kernels.body(z.device, z.dtype).gumbel
    return tile_reference.noise_of(z, key, gumbel).add_(z)


def _relaxed(
    layer: Layer, draws: Draws, arriving: Arriving, noisy: bool, tau: Any, across: Across
) -> tuple[Law, Tensor]:
    """q, and <q, h> of each row, ``(N, 1)``."""
    n, wide = len(layer.x), compute_dtype(layer.dtype)
    top = torch.full((n, 1), -math.inf, dtype=wide, device=layer.x.device)
    total, weighted = torch.zeros_like(top), torch.zeros_like(top)
    one = torch.ones((), dtype=wide, device=layer.x.device)
    for tile in tiles(layer):
        at, z = tile.rows, _scores(tile, draws, noisy)
        now = torch.maximum(top[at], z.amax(-1, keepdim=True))
        less = now.masked_fill(now == -math.inf, 0)
        law = Law(less, one, _at(tau, at))
        kept = tile_reference.weights(top[at].clone(), law)
        e = tile_reference.weights(z, law)
        total[at] = total[at] * kept + e.sum(-1, keepdim=True)
        weighted[at] = weighted[at] * kept + e.mul_(arriving.h(tile)).sum(-1, keepdim=True)
        top[at] = now
    top, total, weighted = across.means(top, total, weighted, tau)
    scale = 1 / total.masked_fill(total == 0, 1)
    return Law(top.masked_fill(top == -math.inf, 0), scale, tau), weighted * scale


def _backward_fake(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> tuple[Tensor, ...]:
    codebook, wanted = rest[5], rest[-1]
    inputs = (x, weight, weight[:, 0] if bias is None else bias, x if codebook is None else codebook)
    return tuple(t.new_empty(t.shape if asked else 0) for t, asked in zip(inputs, wanted, strict=True))


backward = Operation(
    "linear_draw_backward",
    f"({INPUTS}, Tensor? codebook, Tensor index, Tensor logsumexp, Tensor? u, Tensor? g, str rule, Tensor? tau, "
    "bool[] wanted) -> (Tensor, Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)
