"""Indices drawn by weights: torch.multinomial without its limits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from softdraw.arguments import last, row_ids, rows_of
from softdraw.checks import check_bool, check_real, count, integer
from softdraw.indices.gumbel_topk import gumbel_topk
from softdraw.noise import halves, words
from softdraw.operators.operator import under_torch_func
from softdraw.overrides import overridable
from softdraw.private_torch import assert_later
from softdraw.seeds import seed_for
from softdraw.tensors import is_dtensor, is_plain

_BITS = 61  # of the sum of all weights as integers


@overridable
def multinomial(
    weights: Tensor,
    n: int,
    replacement: bool = False,
    *,
    dim: int = -1,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    rows: int | Tensor = 0,
) -> Tensor:
    r"""Draw n indices by weights that need not sum to 1, with or without replacement.

    .. math:: P(i) = w_i / \sum_j w_j

    of each index with replacement, and without it of each one among those that are left.

    With replacement the weights become integers, and a 64-bit number of the noise contract is looked up in their
    running sum: each probability is right to 2^-58, and the draw is the same on every device. Without it the indices
    are those of the largest ``log w + G``, in float64. Neither is limited to 2^24 categories.

    Args:
        weights: w >= 0, ``(..., K)`` (K at ``dim``), floating or integer. A weight of 0 is never drawn.
        n: how many indices are drawn from each row, an int >= 0. A smaller n gives the first indices of a larger one.
        replacement: whether an index may be drawn again.
        dim: the dimension of the categories.
        seed, generator, rows: as for :func:`gumbel_softmax`.

    Returns:
        int64 of shape ``(*batch, n)``, batch being the shape of the weights without ``dim``. Without replacement a row
        ends in -1 where no weights are left; a row of zeros is all -1.

    Gradient:
        None: an index has no gradient.

    Raises:
        ValueError: a weight is negative, infinite or NaN, or a sum is not finite (CPU; an assertion in the stream of an
        accelerator and in compiled code; under torch.func the row is all -1). TypeError, IndexError: naming the
        argument, what it got and what is allowed.

    Example:
        >>> weights = torch.tensor([1.0, 0.0, 3.0])
        >>> softdraw.multinomial(weights, 8, replacement=True, seed=0)
        tensor([2, 2, 2, 0, 2, 2, 2, 2])
        >>> softdraw.multinomial(weights, 3, seed=0)
        tensor([ 2,  0, -1])

    Source:
        Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3"; Efraimidis and Spirakis (2006), "Weighted
        random sampling with a reservoir", for the draw without replacement.
    """
    w = _prepare_weights(weights, dim)
    n = count("n", n, 0, "how many indices are drawn")
    check_bool("replacement", replacement)
    if not replacement:
        return gumbel_topk(w.log(), n, seed=seed, generator=generator, rows=rows)
    if n > 2**31:
        raise ValueError(f"n must be at most 2**31 with replacement, got {n}: give more rows, or another seed")
    ids = rows_of(rows, w, seed)
    return _with_replacement(w, n, seed_for(w, seed, generator), ids)


def _prepare_weights(weights: Tensor, dim: int) -> Tensor:
    """The weights in float64 with the categories last, after a check of their values where they can be read."""
    check_real("weights", weights)
    if is_dtensor(weights):
        raise TypeError(
            "weights must be a plain tensor, got a DTensor: write weights.to_local(), with the ids of its rows as rows="
        )
    w = last(weights, _dim_of(weights, dim)).detach().double()
    if under_torch_func():
        return w  # where nothing can be read or asserted: a row that is not legal is all -1
    legal = _legal(w).all()
    if not is_plain(w) or not w.is_cpu:
        assert_later(legal, "weights must be 0 or more, and their sums finite")
    elif not legal:
        raise ValueError(
            f"weights must be 0 or more, and their sums finite, got values from {w.min().item()} to {w.max().item()}: "
            "logits go to softdraw.gumbel_topk"
        )
    return w


def _dim_of(weights: Tensor, dim: int) -> int:
    """``dim`` counted from the front, after a check that weights are there."""
    dim, n = integer("dim", dim, "the dimension of the categories"), weights.dim()
    if n == 0:
        raise ValueError("weights must have a dimension of categories, got a 0-d tensor: give it the shape (..., K)")
    if not -n <= dim < n:
        raise IndexError(f"dim must be from {-n} to {n - 1} for weights of shape {tuple(weights.shape)}, got {dim}")
    if weights.shape[dim] == 0:
        raise ValueError(f"weights must have at least one category, got shape {tuple(weights.shape)} with dim={dim}")
    return dim % n


def _with_replacement(w: Tensor, n: int, seed: Tensor, rows: Tensor | None) -> Tensor:
    """The places of n random numbers below the running sum of the weights as integers."""
    bounds = _whole(w).cumsum(-1)
    total = bounds[..., -1:] * _legal(w)
    ids = row_ids(w.shape[:-1], w.device) if rows is None else rows
    stream = torch.zeros((), dtype=torch.int64, device=w.device)
    low, high = words(seed, ids, 2 * n, 0, stream).unflatten(-1, (n, 2)).unbind(-1)
    at = torch.searchsorted(bounds, _product_high(low, high, total), right=True)
    return torch.where(total == 0, -1, at)


def _legal(w: Tensor) -> Tensor:
    """Whether a row is a law: no weight is negative, infinite or NaN, and their sum is finite."""
    return (w >= 0).all(-1, keepdim=True) & (w.sum(-1, keepdim=True) < math.inf)


def _whole(w: Tensor) -> Tensor:
    """Weights as integers whose sum is from 2^58 to 2^61. What is not 0 becomes 1 at least.

    Every step is exact or rounds one element by itself, so that all devices have the same integers: the value of a
    floating-point sum depends on its order.
    """
    spare = _BITS - max(w.shape[-1] - 1, 1).bit_length() - 1
    _, bits = torch.frexp(w.amax(-1, keepdim=True))  # all weights are below 2^bits
    rough = _times_power(w, spare - bits).floor().long().sum(-1, keepdim=True)
    _, taken = torch.frexp(rough.double())
    whole = _times_power(w, spare - bits + (_BITS - 2 - taken)).ceil().long()
    return torch.maximum(whole, (w > 0).long())


def _times_power(x: Tensor, bits: Tensor) -> Tensor:
    """x 2^bits by the exponents of floats, which are exact everywhere; in two halves, each a normal number."""
    half = bits.long() >> 1
    for part in (half, bits.long() - half):
        x = x * ((part + 1023) << 52).view(torch.float64)
    return x


def _product_high(low: Tensor, high: Tensor, total: Tensor) -> Tensor:
    """floor(x total / 2^64) of the 64-bit x = high 2^32 + low: from 0 to total - 1.

    Products of two halves wrap in an int64, and still have the right bits in both of their own halves.
    """
    small, large = halves(total)
    (_, carry), (a0, a1), (b0, b1) = halves(low * small), halves(low * large), halves(high * small)
    _, middle = halves(carry + a0 + b0)
    return high * large + a1 + b1 + middle
