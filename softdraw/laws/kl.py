"""KL divergences between these laws and torch's own; ``law.uniform()`` is the other side of a KL to the uniform."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributions
from torch.distributions.kl import register_kl

from softdraw.arguments import compute_dtype
from softdraw.kernels.pass_reference import Rows, divergence
from softdraw.laws.bernoulli import Bernoulli
from softdraw.laws.categorical import CategoricalLaw
from softdraw.laws.from_torch import from_torch
from softdraw.laws.one_hot import OneHotCategorical
from softdraw.laws.plackett_luce import PlackettLuce
from softdraw.laws.subset import Subset
from softdraw.operators import bits, passes


def _ours(law: Any) -> Any:
    return law if isinstance(law, CategoricalLaw) else from_torch(law)


@register_kl(OneHotCategorical, OneHotCategorical)
@register_kl(OneHotCategorical, distributions.OneHotCategorical)
@register_kl(distributions.OneHotCategorical, OneHotCategorical)
def _kl_categorical(p: Any, q: Any) -> Tensor:
    _check(p, q)
    (x, x_allowed), (y, y_allowed) = _ours(p).rows(), _ours(q).rows()
    return passes.kl(Rows(x, y, x_allowed, y_allowed)).to(_dtype(p))


@register_kl(Bernoulli, Bernoulli)
@register_kl(Bernoulli, distributions.Bernoulli)
@register_kl(distributions.Bernoulli, Bernoulli)
def _kl_bernoulli(p: Any, q: Any) -> Tensor:
    _check(p, q)
    x, z = _ours(p), _ours(q)
    dtype = _dtype(p)
    if x.theta.device != z.theta.device or not (bits.takes(x.theta) and bits.takes(z.theta)):
        return divergence(x.log_probs(), z.log_probs()).to(dtype)
    theta, other = x.masked_theta(), z.masked_theta()
    wide = compute_dtype(torch.promote_types(theta.dtype, other.dtype))
    theta = theta if compute_dtype(theta.dtype) == wide else theta.to(wide)
    other = other if other.dtype == wide else other.to(wide)
    if theta.shape != other.shape:
        theta, other = torch.broadcast_tensors(theta, other)
    return bits.kl(theta, other).to(dtype)


@register_kl(Subset, Subset)
def _kl_subset(p: Subset, q: Subset) -> Tensor:
    """E_p[log p - log q]; infinite where they choose different numbers of items, 0 where p has no subset."""
    _check(p, q)
    x, k = p.scores(), torch.as_tensor(p.k, device=p.theta.device)
    kl = p.expected_log_prob(p) - p.expected_log_prob(q)
    return kl.masked_fill(k != torch.as_tensor(q.k, device=x.device), torch.inf).to(p.theta.dtype)


@register_kl(PlackettLuce, PlackettLuce)
def _kl_orders(p: PlackettLuce, q: PlackettLuce) -> Tensor:
    _check(p, q)
    if p.theta.shape[-1] != q.theta.shape[-1]:
        raise ValueError(
            f"kl_divergence needs laws over the same items, got {p.theta.shape[-1]} and {q.theta.shape[-1]} of them"
        )
    return p.divergence(q)


def _check(p: Any, q: Any) -> None:
    if p.event_shape != q.event_shape:
        raise ValueError(
            f"kl_divergence needs laws over the same categories, got {type(p).__name__} of event shape "
            f"{tuple(p.event_shape)} and {type(q).__name__} of {tuple(q.event_shape)}"
        )
    if any(m != n and 1 not in (m, n) for m, n in zip(reversed(p.batch_shape), reversed(q.batch_shape), strict=False)):
        raise ValueError(
            f"kl_divergence needs laws whose batches broadcast, got {tuple(p.batch_shape)} and {tuple(q.batch_shape)}"
        )


def _dtype(p: Any) -> torch.dtype:
    return p.theta.dtype if isinstance(p, CategoricalLaw) else p.logits.dtype


@register_kl(Bernoulli, distributions.Poisson)
def _kl_bernoulli_poisson(p: Bernoulli, q: distributions.Poisson) -> Tensor:
    """sum p(b) (log p(b) - b log rate + rate), for log b! = 0."""
    return -p.entropy() - (torch.special.xlogy(p.mean, q.rate) - q.rate)
