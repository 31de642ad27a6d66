"""``losses``: each loss of ``softdraw.losses`` beside the one of torch, or the same in torch's operations.

Forward and backward, with the mean for a result, which is the default of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from softdraw import losses
from softdraw.bench.line import Gradient, Line, Ways

RATIO = 0.3  # of the gates that are to stay open


def _targets(x: Tensor) -> Tensor:
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(2)).to(x.device, x.dtype)


def _indices(x: Tensor) -> Tensor:
    return torch.randint(x.shape[-1], x.shape[:-1], generator=torch.Generator().manual_seed(2)).to(x.device)


def _prior(x: Tensor) -> Tensor:
    return x.flip(-1)


def _kl_to_uniform(x: Tensor) -> Tensor:
    log_q = x.log_softmax(-1)
    return (math.log(x.shape[-1]) + (log_q.exp() * log_q).sum(-1)).mean()


def _kl_to_prior(x: Tensor, prior: Tensor) -> Tensor:
    log_q = x.log_softmax(-1)
    return (log_q.exp() * (log_q - prior.log_softmax(-1))).sum(-1).mean()


def _entropy(x: Tensor) -> Tensor:
    log_q = x.log_softmax(-1)
    return -(log_q.exp() * log_q).sum(-1).mean()


def _diversity(x: Tensor) -> Tensor:
    p, k = x.softmax(-1).mean(0), x.shape[-1]
    return (k - torch.special.entr(p).sum().exp()) / k


def _load_balance(x: Tensor) -> Tensor:
    chosen = F.one_hot(x.argmax(-1), x.shape[-1]).to(x.dtype).mean(0)
    return x.shape[-1] * (chosen * x.softmax(-1).mean(0)).sum()


def _keep_ratio(x: Tensor) -> Tensor:
    return (RATIO - x.sigmoid().mean()) ** 2


def _ours_keep_ratio(x: Tensor) -> Tensor:
    return losses.keep_ratio(x, RATIO)


def _line(
    ours: Callable[..., Tensor],
    peers: dict[str, Callable[..., Tensor]],
    dense: int,
    target: Callable[[Tensor], Tensor] | None = None,
    indices: int = 0,
) -> Line:
    def ways(x: Tensor) -> Ways:
        others = () if target is None else (target(x),)
        return {name: Gradient(f, x, others=others) for name, f in {"softdraw": ours, **peers}.items()}

    return Line(ways, dense, indices=indices)


LINES = {
    "bernoulli_nll": _line(losses.bernoulli_nll, {"torch": F.binary_cross_entropy_with_logits}, 5, _targets),
    "categorical_nll": _line(losses.categorical_nll, {"torch": F.cross_entropy}, 3, _indices, indices=2),
    "kl_to_uniform": _line(losses.kl_to_uniform, {"by hand": _kl_to_uniform}, 3),
    "kl_to_prior": _line(losses.kl_to_prior, {"by hand": _kl_to_prior}, 5, _prior),
    "entropy": _line(losses.entropy, {"by hand": _entropy}, 3),
    "diversity": _line(losses.diversity, {"by hand": _diversity}, 3),
    "load_balance": _line(losses.load_balance, {"by hand": _load_balance}, 3),
    "keep_ratio": _line(_ours_keep_ratio, {"by hand": _keep_ratio}, 3),
}
