"""The divergence of two laws of latents, balanced by stopped gradients, with free nats."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.distributions import kl_divergence

from softdraw.arguments import compute_dtype
from softdraw.checks import given, number
from softdraw.laws import Law
from softdraw.losses.common import kept_mask, reduce, without


def balanced_kl(
    posterior: Law,
    prior: Law,
    *,
    free: float = 1.0,
    dynamics: float = 1.0,
    representation: float = 0.1,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""Pulls a prior towards a posterior, and the posterior more gently towards the prior: the divergence of Dreamer.

    .. math:: \ell = \beta_{dyn} \max\Big(f, \sum_i \mathrm{KL}(\bar q_i \,\|\, p_i)\Big)
        + \beta_{rep} \max\Big(f, \sum_i \mathrm{KL}(q_i \,\|\, \bar p_i)\Big)

    with a bar where no gradient passes. The divergences of the latents are **summed first and clipped then**: an
    example has f free nats, not each of its latents. Clipping comes before the mean over the examples.

    Args:
        posterior: the law q of the latents, ``(..., latents)`` in its batch, as in ``Latent()(x).law``.
        prior: the law p, of the same batch.
        free: f >= 0, the nats below which a divergence is left alone.
        dynamics: the weight of the first term, which trains the prior.
        representation: the weight of the second, which trains the posterior.
        mask: bool, True = counted, of the batch without the latents, 1 where it is the same along a dimension.
        weight: of an example, shapes as for ``mask``.
        reduction: ``"mean"`` is :math:`\sum w \ell / \sum w` over the examples kept, ``"sum"``, or ``"none"``.

    Returns:
        float32 (float64 for float64 laws), 0-d, or the batch without the latents with ``"none"``.

    Gradient:
        Exact, with the stops above; zero for an example whose sum is below the free nats.

    Raises:
        TypeError, ValueError: naming the argument, what it got and what is allowed.

    Example:
        >>> q = softdraw.OneHotCategorical(torch.tensor([[3.0, 0.0], [0.0, 2.0]]), uniform=0.01)
        >>> p = softdraw.OneHotCategorical(torch.zeros(2, 2), uniform=0.01)
        >>> softdraw.losses.balanced_kl(q, p, free=0.0)
        tensor(0.8901)
        >>> softdraw.losses.balanced_kl(q, p)  # 0.81 nats are less than the free one
        tensor(1.1000)

    Source:
        Hafner, Pasukonis, Ba and Lillicrap (2023), "Mastering diverse domains through world models", eq. 5; Hafner,
        Lillicrap, Norouzi and Ba (2021), "Mastering Atari with discrete world models", for the balance.
    """
    q, p = _law("posterior", posterior), _law("prior", prior)
    if q.batch_shape != p.batch_shape or q.event_shape != p.event_shape:
        raise ValueError(
            f"prior must have the batch and event of posterior, {tuple(q.batch_shape)} and {tuple(q.event_shape)}, got "
            f"{tuple(p.batch_shape)} and {tuple(p.event_shape)}: expand or reshape its logits"
        )
    least = _not_negative("free", free)
    to_prior, to_posterior = _not_negative("dynamics", dynamics), _not_negative("representation", representation)
    terms = [(to_prior, q.detach(), p), (to_posterior, q, p.detach())]
    first = kl_divergence(*terms[0][1:])
    keep = kept_mask(mask, first[..., 0], "the batch of the laws without the latents")
    sums = [first.sum(-1), kl_divergence(*terms[1][1:]).sum(-1)]
    dyn, rep = (term[0] * without(x, keep).clamp_min(least) for term, x in zip(terms, sums, strict=True))
    return reduce(dyn + rep, keep, weight, reduction)


def _law(name: str, law: Any) -> Any:
    """The law in float32 or float64, after a check that it is one with a dimension of latents."""
    if not isinstance(law, Law):
        raise TypeError(
            f"{name} must be a law such as softdraw.OneHotCategorical(logits, uniform=0.01), got {given(law)}: "
            "a module returns it as .law"
        )
    if not law.batch_shape:
        raise ValueError(f"{name} must have a batch that ends in the latents, got the batch (): one latent has (1,)")
    return law.replace(law.theta.to(compute_dtype(law.theta.dtype)), law.allowed)


def _not_negative(name: str, value: float) -> float:
    x = number(name, value, "a number of at least 0")
    if not 0 <= x < math.inf:
        raise ValueError(f"{name} must be at least 0 and finite, got {x}")
    return x
