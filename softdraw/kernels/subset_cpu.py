"""Laws of k of n items on the CPU, compiled: this file turns operands into what csrc/subset.h takes.

Logits are in float32 or float64, and a row's numbers depend on nothing but the row.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

from softdraw.kernels.native import STORAGE, SUBSET, address, advice, function
from softdraw.kernels.reference import subset as reference
from softdraw.kernels.reference.subset import Size

_CODES = {torch.float32: STORAGE["float32"], torch.float64: STORAGE["float64"]}


def normalizer(x: Tensor, k: Size) -> Tensor:
    """log Z, log q_k and the tilt c, ``(..., 3)``, computed in float64."""
    x = x.double()
    out = x.new_empty((*x.shape[:-1], 3))
    return _run("subset_normalizer", out, x, k)


def mean(x: Tensor, k: Size) -> Tensor:
    """Inclusion probabilities."""
    return _run("subset_mean", x.new_empty(x.shape), x, k)


def covariance(x: Tensor, k: Size, grad: Tensor) -> Tensor:
    """The covariance times a vector, which has the shape of the logits."""
    return _run("subset_covariance", x.new_empty(x.shape), x, k, grad=grad)


def sample(x: Tensor, k: Size, seed: Tensor, rows: Tensor | None, samples: int) -> Tensor:
    """Exact subsets, ``(samples, ..., n)``."""
    out = x.new_empty((samples, *x.shape))
    return _run("subset_sample", out, x, k, seed=seed, rows=rows, samples=samples)


@functools.cache
def agrees(dtype: torch.dtype) -> bool:
    """Whether the kernels give what plain torch gives, asked once for a dtype: for rows side by side, and for rows that
    are worked on alone. A warning says so where they do not."""
    within = 1e-4 if dtype == torch.float32 else 1e-10
    with torch.inference_mode(mode=False), torch.no_grad():
        for n, most in ((6, 3), (400, 9)):
            for name, ours, theirs in _results(n, Size(most, most), dtype):
                if not torch.allclose(ours, theirs, within, within):
                    why = f"the compiled {name} of {most} of {n} items in {dtype} differs from it. {advice()}"
                    warnings.warn(f"softdraw computes subsets with plain torch: {why}", RuntimeWarning, stacklevel=2)
                    return False
    return True


def _results(n: int, k: Size, dtype: torch.dtype) -> Iterator[tuple[str, Tensor, Tensor]]:
    x = torch.linspace(-2, 2, 2 * n, dtype=dtype, device="cpu").view(2, n).roll(n // 3, -1)
    seed, rows = torch.full((), 2**40 + 1, device="cpu"), torch.arange(2, device="cpu").view(2, 1) + 2**33
    yield "normalizer", normalizer(x, k)[..., 0].to(dtype), reference.log_normalizer(x, k)
    yield "mean", mean(x, k), reference.mean(x, k)
    yield "covariance", covariance(x, k, x.flip(-1)), reference.covariance(x, k, x.flip(-1))
    yield "sample", sample(x, k, seed, rows, 2), reference.sample(x, k, seed, rows, 2)


def _run(
    name: str,
    out: Tensor,
    x: Tensor,
    k: Size,
    grad: Tensor | None = None,
    seed: Tensor | None = None,
    rows: Tensor | None = None,
    samples: int = 1,
) -> Tensor:
    """Pack the operands for the library and call the operation. What is packed is held here until it returns."""
    n, batch = x.shape[-1], x.shape[:-1]
    x = x.resolve_neg().contiguous()
    grad = None if grad is None else grad.resolve_neg().contiguous()
    each = k.each.expand(batch).contiguous() if isinstance(k.each, Tensor) else None
    ids = None if rows is None else rows.expand(*batch, 1).contiguous()
    at = [address(t) for t in (out, x, grad, each, seed, ids)]
    numbers = (x.numel() // n, n, k.most, _CODES[x.dtype], samples, torch.get_num_threads())
    if function(name)(SUBSET.pack(*at, *numbers)):
        raise MemoryError(
            f"logits of shape {tuple(x.shape)} with k up to {k.most} need a tree of more numbers than there is memory "
            "for, got none (about n log k numbers for each thread): take fewer threads, a smaller k, or fewer items"
        )
    return out
