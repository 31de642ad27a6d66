"""``laws``: log-probability, entropy and divergence beside torch.distributions, forward and backward.

Each call makes the law and asks it once, as a training step does. ``torch`` has its default checks, ``unchecked`` has
``validate_args=False``; ours has its default checks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, distributions

from softdraw.bench.line import Gradient, Line, Ways
from softdraw.laws import Bernoulli, OneHotCategorical

_Made = Callable[..., distributions.Distribution]


def _log_prob(theta: Tensor, value: Tensor, law: _Made) -> Tensor:
    return law(logits=theta).log_prob(value)


def _entropy(theta: Tensor, law: _Made) -> Tensor:
    return law(logits=theta).entropy()


def _kl(theta: Tensor, other: Tensor, law: _Made) -> Tensor:
    return distributions.kl_divergence(law(logits=theta), law(logits=other))


def _laws(ours: _Made, stock: _Made) -> dict[str, _Made]:
    return {"softdraw": ours, "torch": stock, "unchecked": partial(stock, validate_args=False)}


ONE_HOT = _laws(OneHotCategorical, distributions.OneHotCategorical)
BITS = _laws(Bernoulli, distributions.Bernoulli)


def _one_hots(x: Tensor) -> Tensor:
    index = torch.randint(x.shape[-1], x.shape[:-1], generator=torch.Generator().manual_seed(2))
    return F.one_hot(index, x.shape[-1]).to(x.device, x.dtype)


def _zeros_and_ones(x: Tensor) -> Tensor:
    return torch.randint(2, x.shape, generator=torch.Generator().manual_seed(2)).to(x.device, x.dtype)


def _log_probs(laws: dict[str, _Made], values: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Ways]:
    def ways(x: Tensor) -> Ways:
        value = values(x)
        return {name: Gradient(partial(_log_prob, law=law), x, others=(value,)) for name, law in laws.items()}

    return ways


def _entropies(laws: dict[str, _Made]) -> Callable[[Tensor], Ways]:
    return lambda x: {name: Gradient(partial(_entropy, law=law), x) for name, law in laws.items()}


def _divergences(laws: dict[str, _Made]) -> Callable[[Tensor], Ways]:
    return lambda x: {name: Gradient(partial(_kl, law=law), x, x.flip(-1)) for name, law in laws.items()}


LINES = {
    "OneHot.log_prob": Line(_log_probs(ONE_HOT, _one_hots), dense=5, a_row=2),
    "OneHot.entropy": Line(_entropies(ONE_HOT), dense=3, a_row=2),
    "OneHot.kl": Line(_divergences(ONE_HOT), dense=6, a_row=2),
    "Bernoulli.log_prob": Line(_log_probs(BITS, _zeros_and_ones), dense=7),
    "Bernoulli.entropy": Line(_entropies(BITS), dense=5),
    "Bernoulli.kl": Line(_divergences(BITS), dense=8),
}
