r"""Subsets in plain torch: k of n items, p(z) proportional to exp(<theta, z>) over n bits of which k are 1.

A common shift c of the logits changes nothing. It is chosen so that the probabilities p_i = sigmoid(theta_i + c) of
independent bits sum to k ("tilt"). Then the law is that of the bits given that k of them are 1, and k is the mode of
their number: with q_k the probability of k ones,

.. math:: \log Z = \log q_k - k c + \sum_i \mathrm{softplus}(\theta_i + c), \qquad
          q_k \approx (2 \pi \textstyle\sum_i p_i (1 - p_i))^{-1/2}

The polynomials (1 - p_i) + p_i x are multiplied in pairs, up to the degree k, on a binary tree whose leaves are the
items. Coefficient j of a node is the probability that j of its items are chosen. Everything is a sum of positive terms,
so no digits cancel, and what underflows is too unlikely to matter. Going down, the "outside" of a node holds, for each
count of the node, the probability that the rest makes k of it: at a leaf it gives the item's marginal. All of it holds
for any c, so derivatives go through the tree with c constant, as often as wanted. Work is O(nk), and depth O(log n).

A node covers the items from i 2^l to (i + 1) 2^l - 1, whatever n is: what lies beyond n is never chosen. Where a node
holds j, a draw gives a of them to its left half with probability proportional to left[a] right[j - a]. It takes one
64-bit uniform, words 0 and 1 of the Philox block of the columns 4 s to 4 s + 3, where s is the first item of the right
half: no two nodes have one s, and it does not depend on n.

Source: Gail, Lubin and Rubinstein (1981) for the law; Chen and Liu (1997), "Statistical applications of the
Poisson-binomial and conditional Bernoulli distributions", for tilt and recursion; Ahmed et al. (2023), "SIMPLE".
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

from softdraw import noise
from softdraw.kernels.reference.tilt import Size, limit, tilt
from softdraw.numerics import times


class Bits(NamedTuple):
    """Independent bits, tilted: their log-odds in float64, and the probabilities of 1 and 0 in the dtype of theta."""

    odds: Tensor
    on: Tensor
    off: Tensor


Tree = list[Tensor]  # polynomials of the nodes, (..., nodes, coefficients), leaves first


def log_normalizer(x: Tensor, k: Size) -> Tensor:
    """log Z, ``batch``; -inf where fewer than k items are allowed, +inf where an item that may be chosen is at +inf."""
    bits, c = _tilted(x, k)
    total = softplus(bits.odds).sum(-1) + log_q(bits.odds, k) - (k.column * c).squeeze(-1)
    total = total.masked_fill((x == math.inf).any(-1) & (_counts(k, total) > 0), math.inf)
    return total.masked_fill(too_few(x, k).squeeze(-1), -math.inf).to(x.dtype)


def log_density(x: Tensor, k: Size, value: Tensor) -> Tensor:
    """sum z log p + (1 - z) log(1 - p) - log q_k: log p(z) of a subset z, and affine in z beyond; -inf where fewer than
    k items are allowed."""
    bits, _ = _tilted(x, k)
    log_p = density(bits.odds, log_q(bits.odds, k), value)
    return log_p.masked_fill(too_few(x, k).squeeze(-1), -math.inf).to(x.dtype)


def density(odds: Tensor, log_q: Tensor, value: Tensor) -> Tensor:
    """log p(z) from the log-odds of the bits and log q_k, all in float64."""
    value = value.double()
    on, off = -softplus(-odds), -softplus(odds)
    each = times(*torch.broadcast_tensors(value, on)) + times(*torch.broadcast_tensors(1 - value, off))
    return each.sum(-1) - log_q


def mean(x: Tensor, k: Size) -> Tensor:
    """Inclusion probabilities, ``(..., n)``: how often each item is chosen; 0 where fewer than k are allowed."""
    bits, _ = _tilted(x, k)
    tree = tree_of(bits, k.most)
    off, on = _leaves(_outside(tree, _root(tree, k)), bits)
    on, off = bits.on * on, bits.off * off
    return (on / _or_one(on + off)).masked_fill(too_few(x, k), 0)


def covariance(x: Tensor, k: Size, grad: Tensor) -> Tensor:
    """The covariance of a subset times a vector: the derivative of the mean along it.

    The vector less a constant has the same product. Less its mean over the bits, few digits cancel.
    """
    bits, _ = _tilted(x, k)
    spread = (bits.on * bits.off).detach()
    grad = grad - (spread * grad.detach()).sum(-1, keepdim=True) / _or_one(spread.sum(-1, keepdim=True))
    tree = tree_of(bits, k.most)
    slopes = _slopes(tree, bits.on * bits.off * grad, k.most)
    outside, slope = _outside_slopes(tree, slopes, k)
    (off, on), (off_slope, on_slope) = _leaves(outside, bits), _leaves(slope, bits)
    chosen, left = bits.on * on, bits.off * off
    each = chosen * left / _or_one(chosen + left) ** 2
    change = grad + on_slope / _or_one(on) - off_slope / _or_one(off)
    return (each * change).masked_fill(too_few(x, k), 0)


def sample(x: Tensor, k: Size, seed: Tensor, rows: Tensor, samples: int) -> Tensor:
    """Exact subsets as k-hot vectors, ``(samples, ..., n)``; zeros where fewer than k are allowed, NaN for a row with
    NaN or +inf. ``rows``: the id of every row, ``(..., 1)``."""
    n = x.shape[-1]
    bits, _ = _tilted(x, k)
    tree = tree_of(bits, k.most)
    stream = torch.arange(samples, device=x.device).view(-1, *[1] * x.dim())
    held = _counts(k, x[..., 0]).expand(samples, *x.shape[:-1]).unsqueeze(-1)
    for level in range(len(tree) - 1, 0, -1):
        below, nodes = tree[level - 1], tree[level].shape[-2]
        pairs = below.unflatten(-2, (nodes, 2))
        middle = torch.arange(nodes, device=x.device) * 2**level + 2 ** (level - 1)
        words = noise.philox((middle, *noise.halves(rows), stream), noise.halves(seed))[:2]
        left = _split(pairs[..., 0, :], pairs[..., 1, :], held, words)
        held = torch.stack((left, held - left), -1).flatten(-2)
    z = held[..., :n].to(x.dtype).masked_fill(too_few(x, k), 0)
    return z.masked_fill((x.isnan() | (x == math.inf)).any(-1, keepdim=True), math.nan)


def too_few(x: Tensor, k: Size) -> Tensor:
    """Where fewer than k items are allowed, ``(..., 1)``; a row with NaN is NaN instead."""
    allowed = (x != -math.inf).sum(-1, keepdim=True)
    return (allowed < k.column) & ~x.isnan().any(-1, keepdim=True)


def bits_of(x: Tensor, c: Tensor) -> Bits:
    """The independent bits of logits with the tilt c."""
    odds = x.double() + c
    return Bits(odds, torch.sigmoid(odds).to(x.dtype), torch.sigmoid(-odds).to(x.dtype))


def tree_of(bits: Bits, most: int) -> Tree:
    """The polynomials of every node up to the degree ``most``."""
    depth = max(bits.on.shape[-1] - 1, 0).bit_length()
    beyond = 2**depth - bits.on.shape[-1]
    tree = [torch.stack((pad(bits.off, (0, beyond), value=1.0), pad(bits.on, (0, beyond))), -1)[..., : most + 1]]
    for _ in range(depth):
        pairs = tree[-1].unflatten(-2, (-1, 2))
        tree.append(product(pairs[..., 0, :], pairs[..., 1, :], most))
    return tree


def product(a: Tensor, b: Tensor, most: int) -> Tensor:
    """The product of two polynomials, ``(..., A)`` and ``(..., B)``, up to the degree ``most``: sums along the
    antidiagonals of their outer product, which are columns once every row is moved by one."""
    first, both = a.shape[-1], a.shape[-1] + b.shape[-1] - 1
    outer = pad(a.unsqueeze(-1) * b.unsqueeze(-2), (0, first))
    return outer.flatten(-2)[..., : first * both].unflatten(-1, (first, both)).sum(-2)[..., : most + 1]


def correlate(outer: Tensor, other: Tensor, count: int) -> Tensor:
    """out[a] = sum_b outer[a + b] other[b] for a below ``count``: the outside of a node from its parent's and its
    sibling."""
    width = other.shape[-1]
    outer = pad(outer, (0, max(0, count + width - 1 - outer.shape[-1])))
    return (outer.unfold(-1, width, 1)[..., :count, :] * other.unsqueeze(-2)).sum(-1)


def log_q(odds: Tensor, k: Size) -> Tensor:
    """log q_k, the probability that k bits are 1; -inf where they cannot be. In float64, because log Z and log p may be
    small beside the terms that they are summed from."""
    tree = tree_of(Bits(odds, torch.sigmoid(odds), torch.sigmoid(-odds)), k.most)
    q = (tree[-1].squeeze(-2) * _root(tree, k).squeeze(-2)).sum(-1)
    return q.masked_fill(q == 0, 1).log().masked_fill(q == 0, -math.inf)


def _tilted(x: Tensor, k: Size) -> tuple[Bits, Tensor]:
    """The independent bits, and c."""
    x = limit(x, k)
    c = tilt(x, k.column)
    return bits_of(x, c), c


def _counts(k: Size, like: Tensor) -> Tensor:
    """k of every row as a tensor of the shape of ``like``."""
    each = torch.full((), k.each, device=like.device) if isinstance(k.each, int) else k.each
    return each.expand(like.shape)


def _root(tree: Tree, k: Size) -> Tensor:
    """1 at k, ``(..., 1, coefficients of the root)``: the outside of the root."""
    root = tree[-1]
    at = torch.arange(root.shape[-1], device=root.device) == k.column
    return at.to(root.dtype).unsqueeze(-2).expand(root.shape)


def _outside(tree: Tree, out: Tensor) -> Tensor:
    """The outsides of the leaves, ``(..., leaves, coefficients)``, from that of the root."""
    for below in tree[-2::-1]:
        pairs = below.unflatten(-2, (-1, 2))
        sides = [correlate(out, pairs[..., 1 - side, :], pairs.shape[-1]) for side in (0, 1)]
        out = torch.stack(sides, -2).flatten(-3, -2)
    return out


def _slopes(tree: Tree, slope: Tensor, most: int) -> Tree:
    """The derivatives of the polynomials of every node where the probabilities of 1 change by ``slope``."""
    beyond = tree[0].shape[-2] - slope.shape[-1]
    slopes = [torch.stack((pad(-slope, (0, beyond)), pad(slope, (0, beyond))), -1)[..., : most + 1]]
    for level in tree[:-1]:
        pairs, d = level.unflatten(-2, (-1, 2)), slopes[-1].unflatten(-2, (-1, 2))
        left, right = pairs.unbind(-2), d.unbind(-2)
        slopes.append(product(left[0], right[1], most) + product(right[0], left[1], most))
    return slopes


def _outside_slopes(tree: Tree, slopes: Tree, k: Size) -> tuple[Tensor, Tensor]:
    """The outsides of the leaves, and their derivatives."""
    out = _root(tree, k)
    d_out = torch.zeros_like(out)
    for below, d_below in zip(tree[-2::-1], slopes[-2::-1], strict=True):
        pairs, d = below.unflatten(-2, (-1, 2)), d_below.unflatten(-2, (-1, 2))
        n, sides, d_sides = pairs.shape[-1], [], []
        for side in (1, 0):
            other, d_other = pairs[..., side, :], d[..., side, :]
            sides.append(correlate(out, other, n))
            d_sides.append(correlate(d_out, other, n) + correlate(out, d_other, n))
        out, d_out = torch.stack(sides, -2).flatten(-3, -2), torch.stack(d_sides, -2).flatten(-3, -2)
    return out, d_out


def _leaves(outside: Tensor, bits: Bits) -> tuple[Tensor, Tensor]:
    """The outsides of the items at 0 and at 1, ``(..., n)`` each."""
    outside = outside[..., : bits.on.shape[-1], :]
    return outside[..., 0], outside[..., 1] if outside.shape[-1] > 1 else torch.zeros_like(outside[..., 0])


def _split(left: Tensor, right: Tensor, held: Tensor, words: tuple[Tensor, ...]) -> Tensor:
    """How many of the ``held`` items of each node are in its left half.

    The uniform is read from the end that it is nearer to, and the weights are summed from that end, so that both tails
    have the probabilities that 64 bits give.
    """
    width = left.shape[-1]
    a = torch.arange(width, device=left.device)
    rest = held.unsqueeze(-1) - a
    possible = (rest >= 0) & (rest < width)
    there = right.expand(*rest.shape[:-1], width).gather(-1, rest.clamp(0, width - 1))
    weights = torch.where(possible, left * there, 0)
    from_above = words[0] >= 2**31
    high, low = (torch.where(from_above, 2**32 - 1 - w, w).to(left.dtype) for w in words)
    u = (high + (low + 0.5) * 2**-32) * 2**-32
    below = torch.where(from_above.unsqueeze(-1), weights.flip(-1), weights).cumsum(-1)
    passed = (below <= (u * below[..., -1]).unsqueeze(-1)).sum(-1).clamp(max=width - 1)
    return torch.where(from_above, width - 1 - passed, passed)


def _or_one(x: Tensor) -> Tensor:
    """x, or 1 where it is 0: a divisor of what is 0 there."""
    return x.masked_fill(x == 0, 1)
