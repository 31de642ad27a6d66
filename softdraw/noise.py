"""The noise contract, in plain torch: noise is a pure function of (seed, row, column, stream).

Every draw of the library takes its randomness from here, or from a kernel that equals this file word for word, so the
words of a draw do not depend on batch order, launch shape, thread, rank, device or dtype. A draw can be made again in a
backward pass without having been stored, and differs between devices only where two scores are nearly equal
(docs/noise.md).

    words = Philox4x32-10(counter = (col >> 2, row_lo, row_hi, stream), key = (seed_lo, seed_hi))
    x     = words[col & 3]                                                           uint32
    u     = (x + 1/2) 2^-32                                                          where x >= 256
    u     = (x + (w + 1/2) 2^-32) 2^-32                                              where x <  256
    w     = Philox4x32-10(counter = (col, row_lo, row_hi, stream + 2^31), key)[0]
    E     = -log1p(-min(u, 1 - 2^-24))                                               Exp(1)
    G     = -log(E)                                                                  standard Gumbel

    fold_in(seed, id) = words[0] | words[1] << 32
    words = Philox4x32-10(counter = (id_lo, id_hi, 0, 2^32 - 1), key = (seed_lo, seed_hi))

Only the stream 2^31 - 1, which is not allowed, would have second words at 2^32 - 1, so no draw uses this counter.

With 32 bits for each uniform the winning tail (u -> 0) would end at probability 2^-33. The second word, needed once in
2^24 values, extends it to 2^-65. Integers are int64 tensors that hold values below 2^32: torch has no arithmetic on
uint32, and a wrapped 64-bit product still has the right bits in both halves.

Source: Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3", for Philox; Gumbel (1954) for the law.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

import torch
from torch import Tensor

_LOW = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_TAIL = 2**8  # words below this take their uniform's low bits from a second word
_TAIL_STREAM = 2**31
STREAMS = 2**31 - 1  # independent draws under one seed; the second words of one more would use the counters of keys
_KEY_STREAM = 2**32 - 1
_U_MAX = 1 - 2**-24  # the largest float32 below 1: E stays finite

Counter = tuple[Tensor, Tensor, Tensor, Tensor]


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """The low and the high 32 bits of an int64 tensor, each as an int64 in [0, 2^32)."""
    return x & _LOW, (x >> 32) & _LOW


def philox(counter: Counter, key: tuple[Tensor, Tensor]) -> Counter:
    """Philox4x32-10: four independent 32-bit words for a 128-bit counter and a 64-bit key (all broadcast together)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        low0, high0 = halves(c0 * _MULTIPLIERS[0])
        low1, high1 = halves(c2 * _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


def fold_in(seed: Tensor, id: Tensor) -> Tensor:
    """The seed for the use that ``id`` names: int64 of the shape to which the two broadcast."""
    zero = torch.zeros((), dtype=torch.int64, device=id.device)
    low, high, _, _ = philox((*halves(id), zero, zero + _KEY_STREAM), halves(seed))
    return low | high << 32


def conditional(seed: Tensor, fold: Callable[[Tensor, Tensor], Tensor] = fold_in) -> Tensor:
    """The seed of the noise that rules use besides the draw's own: fold_in(seed, "conditional"). ``fold`` is
    ``fold_in`` or an operation for it."""
    return fold(seed, torch.full((), CONDITIONAL, dtype=torch.int64, device=seed.device))


def fold_number(seed: int, id: int) -> int:
    """``fold_in`` in Python's integers, as an int64: a hundred times faster than tensors of one element."""
    c0, c1, c2, c3 = id & _LOW, id >> 32 & _LOW, 0, _KEY_STREAM
    k0, k1 = seed & _LOW, seed >> 32 & _LOW
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = p1 >> 32 ^ c1 ^ k0, p1 & _LOW, p0 >> 32 ^ c3 ^ k1, p0 & _LOW
        k0, k1 = k0 + _WEYL[0] & _LOW, k1 + _WEYL[1] & _LOW
    return signed(c0 | c1 << 32)


def signed(x: int) -> int:
    """An int modulo 2^64 as the int64 that has its bits."""
    return (x + 2**63) % 2**64 - 2**63


def id_of(name: str) -> int:
    """A name as an id, an int64: the first 8 bytes of its BLAKE2b hash, the lowest first."""
    return signed(int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little"))


CONDITIONAL = id_of("conditional")


def words(seed: Tensor, rows: Tensor, cols: int, col_start: int, stream: Tensor) -> Tensor:
    """The first word of columns ``col_start .. col_start + cols - 1``: int64 in [0, 2^32), shape ``(..., cols)``.

    ``seed``, ``rows`` and ``stream`` are int64 tensors that broadcast to ``(..., 1)``.
    """
    blocks = torch.arange(col_start >> 2, ((col_start + cols - 1) >> 2) + 1, device=rows.device)
    four = philox((blocks, *halves(rows), stream), halves(seed))
    first = col_start & 3
    return torch.stack(four, dim=-1).flatten(-2)[..., first : first + cols]


def tail_words(seed: Tensor, rows: Tensor, cols: Tensor, stream: Tensor) -> Tensor:
    """The second word of each (row, column): it extends the uniforms whose first word is below 256."""
    return philox((cols, *halves(rows), stream + _TAIL_STREAM), halves(seed))[0]


def words_at(seed: Tensor, rows: Tensor, cols: Tensor, stream: Tensor) -> Tensor:
    """The first word of single columns ``cols``; everything broadcasts together."""
    four = philox((cols >> 2, *halves(rows), stream), halves(seed))
    pair = torch.where((cols & 2) > 0, four[2], four[0]), torch.where((cols & 2) > 0, four[3], four[1])
    return torch.where((cols & 1) > 0, pair[1], pair[0])


def uniform_at(seed: Tensor, rows: Tensor, cols: Tensor, stream: Tensor, dtype: torch.dtype) -> Tensor:
    """The uniforms of single columns ``cols``, in (0, 1), in ``dtype`` (float32 or float64)."""
    return uniform_from_words(words_at(seed, rows, cols, stream), tail_words(seed, rows, cols, stream), dtype)


def uniform_from_words(x: Tensor, tail: Tensor, dtype: torch.dtype) -> Tensor:
    """Uniforms in (0, 1) in ``dtype`` (float32 or float64) from first words ``x`` and second words ``tail``."""
    low = torch.where(x < _TAIL, (tail.to(dtype) + 0.5) * 2**-32, 0.5)
    return ((x.to(dtype) + low) * 2**-32).clamp(max=_U_MAX)


def gumbel_of(u: Tensor) -> Tensor:
    """Standard Gumbel values of uniforms."""
    return -torch.log(-torch.log1p(-u))


def gumbel_from_words(x: Tensor, tail: Tensor, dtype: torch.dtype) -> Tensor:
    """Standard Gumbel values in ``dtype`` (float32 or float64) from first words ``x`` and second words ``tail``."""
    return gumbel_of(uniform_from_words(x, tail, dtype))


def gumbel(seed: Tensor, rows: Tensor, cols: int, col_start: int, stream: Tensor, dtype: torch.dtype) -> Tensor:
    """Standard Gumbel noise of shape ``(..., cols)`` in ``dtype`` (float32 or float64); arguments as for ``words``."""
    x = words(seed, rows, cols, col_start, stream)
    columns = torch.arange(col_start, col_start + cols, device=x.device)
    if x.device.type != "cpu":  # finding the few tail elements would wait for the device
        return gumbel_from_words(x, tail_words(seed, rows, columns, stream), dtype)
    tail = torch.zeros((), dtype=torch.int64, device=x.device)
    small = x < _TAIL
    if bool(small.any()):
        here = [t.expand(x.shape)[small] for t in (seed, rows, columns, stream)]
        tail = torch.zeros_like(x).masked_scatter_(small, tail_words(*here))
    return gumbel_from_words(x, tail, dtype)
