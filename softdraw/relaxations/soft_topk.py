"""The top k of n items, relaxed: a function of scores alone."""

from __future__ import annotations

import torch
from torch import Tensor

from softdraw.arguments import check_logits, compute_dtype, prepare_mask, prepare_tau
from softdraw.checks import check_items
from softdraw.kernels.reference import checked
from softdraw.kernels.reference.tilt import Size, limit, tilt
from softdraw.numerics import masked
from softdraw.tensors import is_plain

_NEAR = 1e-12  # standard deviations of the sum by which the search may miss k


def soft_topk(logits: Tensor, k: int | Tensor, tau: float | Tensor = 1.0, mask: Tensor | None = None) -> Tensor:
    r"""The top k of n items, relaxed: numbers between 0 and 1 that sum to k, the larger the logit the nearer to 1.

    .. math:: p_i = \sigma\Bigl(\frac{\theta_i + c}{\tau}\Bigr), \qquad c \text{ such that } \sum_i p_i = k

    It is the largest point of <theta, p> + tau sum H(p_i), H being the entropy of a bit, among those with 0 <= p <= 1
    and sum k, and tends to the k-hot of the largest logits as tau falls. There is no noise in it, and no law:
    ``softdraw.Subset`` draws k-hots, and its ``mean`` is a vector of the same kind, which is not this one.

    Args:
        logits: theta, ``(*batch, n)``, any floating dtype.
        k: from 0 to n: an int, or an integer tensor that broadcasts to the batch.
        tau: > 0, a number or a tensor, one per row, of shape ``(*batch, 1)``; it may be learned.
        mask: bool, True = allowed, broadcasts to the logits. A forbidden item is 0 and the others sum to k; a row that
            allows fewer than k is zero.

    Returns:
        ``(*batch, n)`` in the dtype of the logits, each row with the sum k up to rounding. An item at +inf is 1; where
        at least k are, they share k alike. A NaN row is NaN.

    Gradient:
        Exact, of the solution (implicit): with d_i = p_i (1 - p_i) / tau it is d (g - <d, g> / sum d), and its own
        derivative is exact too. The gradient for tau is exact.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> logits = torch.tensor([0.0, 1.0, 2.0, -1.0], requires_grad=True)
        >>> p = softdraw.soft_topk(logits, k=2, tau=0.5); p.detach(), p.detach().sum()
        (tensor([0.2689, 0.7311, 0.9526, 0.0474]), tensor(2.))
        >>> p[1].backward(); logits.grad
        tensor([-0.1599,  0.2333, -0.0367, -0.0367])

    Source:
        The entropic relaxation of linear programming over the hypersimplex; Amos, Koltun and Kolter (2019), "The
        limited multi-label projection layer".
    """
    dim = check_logits(logits, -1)
    each, most = check_items(k, logits)
    size, allowed = Size(each, most), prepare_mask(mask, logits, dim)
    temperature = prepare_tau(tau, logits, dim)
    x = masked(logits.to(compute_dtype(logits.dtype)), allowed)
    too_few = (x != -torch.inf).sum(-1, keepdim=True) < size.column
    zero = (too_few | (size.column == 0)) & ~x.isnan().any(-1, keepdim=True)
    x = limit(x, size).double()
    y = (x - _kth(x, size)) / (_checked(temperature) if isinstance(temperature, Tensor) else temperature)
    p = torch.sigmoid(y + _exact(y, size.column))
    return p.masked_fill(zero, 0).to(logits.dtype)


def _kth(x: Tensor, k: Size) -> Tensor:
    """The k-th largest logit: less it, those that tau tells apart are near 0, however small tau is."""
    last = torch.as_tensor(k.column, device=x.device).expand(*x.shape[:-1], 1)
    found = x.detach().sort(dim=-1, descending=True).values.gather(-1, (last - 1).clamp_min(0))
    return found.masked_fill(~found.isfinite(), 0)


def _checked(tau: Tensor) -> Tensor:
    return checked(tau, torch.float64) if is_plain(tau) or not tau.is_cpu else tau.double()


def _exact(y: Tensor, k: int | Tensor) -> Tensor:
    """The tilt to all digits. Newton's steps converge in derivatives as they do in values: two of them, which see how
    the logits enter, have the first three derivatives of the solution."""
    return _step(y, _step(y, tilt(y, k, _NEAR), k), k)


def _step(y: Tensor, c: Tensor, k: int | Tensor) -> Tensor:
    """One step. Where every bit is certain, the sum does not move, and c stays."""
    on, off = torch.sigmoid(y + c), torch.sigmoid(-y - c)
    slope = (on * off).sum(-1, keepdim=True)
    stays = slope.detach() < 1e-12
    miss = (on.sum(-1, keepdim=True) - k).masked_fill(stays, 0)
    return c - miss / slope.masked_fill(stays, 1)
