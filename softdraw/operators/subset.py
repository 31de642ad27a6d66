"""Subsets as autograd sees them: the log-normalizer, whose derivative is the mean, whose derivative is the covariance.

On plain CPU tensors each is one call of the compiled body. Where there is none, and for whatever looks at the
operations (torch.compile, torch.func, forward mode, dispatch modes), it is ``kernels.reference.subset``, which is made
of torch's own operations and has every derivative. So has the third derivative anywhere.

On a GPU plain torch runs as well. A level of the tree is a handful of operations over all its nodes, so a draw is some
hundred launches whatever n and k are; the time of a kernel of our own would be theirs to gain, a few tenths of a
millisecond, for a tree whose nodes have another shape on every level.
"""

from __future__ import annotations

from torch import Tensor

from softdraw.arguments import row_ids
from softdraw.kernels.reference import subset as reference
from softdraw.kernels.reference.subset import Size, too_few

__all__ = ["Size", "covariance", "log_density", "log_normalizer", "mean", "sample", "too_few"]


def log_normalizer(x: Tensor, k: Size) -> Tensor:
    """log Z of logits in float32 or float64, -inf where forbidden."""
    return reference.log_normalizer(x, k)


def log_density(x: Tensor, k: Size, value: Tensor) -> Tensor:
    """log p(value), affine in the value."""
    return reference.log_density(x, k, value)


def mean(x: Tensor, k: Size) -> Tensor:
    """Inclusion probabilities."""
    return reference.mean(x, k)


def covariance(x: Tensor, k: Size, grad: Tensor) -> Tensor:
    """The covariance times a vector."""
    return reference.covariance(x, k, grad)


def sample(x: Tensor, k: Size, seed: Tensor, rows: Tensor | None, samples: int) -> Tensor:
    """Exact subsets as k-hots, ``(samples, *x.shape)``, without gradient."""
    ids = row_ids(x.shape[:-1], x.device) if rows is None else rows
    return reference.sample(x.detach(), k, seed, ids, samples)
