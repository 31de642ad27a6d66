"""Losses from logits that stay right under autocast: likelihoods, divergences, and penalties on usage.

Logits of any floating dtype are brought to float32 (float64 stays) before anything else, on every device, inside an
autocast region or outside, and the loss comes back in that dtype. There is no probability to round, so gradients hold
for any finite logit, and at infinite ones they are the limits.
"""

from softdraw.losses.bernoulli import bernoulli_nll
from softdraw.losses.divergence import entropy, kl_to_prior, kl_to_uniform
from softdraw.losses.latent import balanced_kl
from softdraw.losses.likelihood import categorical_nll
from softdraw.losses.routing import router_z, squared_cv
from softdraw.losses.usage import diversity, keep_ratio, load_balance

__all__ = [
    "balanced_kl",
    "bernoulli_nll",
    "categorical_nll",
    "diversity",
    "entropy",
    "keep_ratio",
    "kl_to_prior",
    "kl_to_uniform",
    "load_balance",
    "router_z",
    "squared_cv",
]
