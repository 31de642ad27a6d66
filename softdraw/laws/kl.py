"""KL divergences between these laws and torch's own; ``law.uniform()`` is the other side of a KL to the uniform."""

from __future__ import annotations

import math

import torch
from torch import Tensor, distributions
from torch.distributions.kl import register_kl

from softdraw.laws.bernoulli import Bernoulli
from softdraw.laws.one_hot import OneHotCategorical


def _divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """sum p (log p - log q); a category that p forbids counts nothing, one that q alone forbids makes it infinite."""
    possible = log_p != -math.inf
    safe_p = torch.where(possible, log_p, 0)
    impossible = possible & (log_q == -math.inf)
    difference = torch.where(possible & ~impossible, safe_p - torch.where(impossible, 0, log_q), 0)
    terms = torch.where(possible, safe_p.exp() * difference, 0).masked_fill(impossible, math.inf)
    return terms.sum(-1)


def _one_hot_log_probs(law: OneHotCategorical | distributions.OneHotCategorical) -> Tensor:
    return law.log_probs() if isinstance(law, OneHotCategorical) else law.logits


def _bernoulli_log_probs(law: Bernoulli | distributions.Bernoulli) -> Tensor:
    ours = law if isinstance(law, Bernoulli) else Bernoulli(law.logits)
    return ours.log_probs()


@register_kl(OneHotCategorical, OneHotCategorical)
@register_kl(OneHotCategorical, distributions.OneHotCategorical)
@register_kl(distributions.OneHotCategorical, OneHotCategorical)
def _kl_one_hot(p, q) -> Tensor:
    return _divergence(_one_hot_log_probs(p), _one_hot_log_probs(q)).to(p.logits.dtype)


@register_kl(Bernoulli, Bernoulli)
@register_kl(Bernoulli, distributions.Bernoulli)
@register_kl(distributions.Bernoulli, Bernoulli)
def _kl_bernoulli(p, q) -> Tensor:
    return _divergence(_bernoulli_log_probs(p), _bernoulli_log_probs(q)).to(p.logits.dtype)
