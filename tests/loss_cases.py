"""Every loss, once for each argument that it has a gradient for, beside the same formula in stock torch."""

import torch
import torch.nn.functional as F

from softdraw import losses

LOSSES = {
    "bernoulli_nll": lambda x, **kw: losses.bernoulli_nll(x, torch.full_like(x, 0.3), **kw),
    "categorical_nll": lambda x, **kw: losses.categorical_nll(x, torch.arange(len(x)) % x.shape[-1], **kw),
    "cross_entropy": lambda x, **kw: losses.categorical_nll(x, torch.full_like(x, 1 / x.shape[-1]), **kw),
    "kl_to_uniform": losses.kl_to_uniform,
    "kl_to_prior": lambda x, **kw: losses.kl_to_prior(x, torch.arange(x.shape[-1]) * 0.1, **kw),
    "entropy": losses.entropy,
    "diversity": losses.diversity,
    "load_balance": losses.load_balance,
    "keep_ratio": lambda x, **kw: losses.keep_ratio(x, 0.4, dim=-1, **kw),
}
ROWWISE = ("categorical_nll", "cross_entropy", "kl_to_uniform", "kl_to_prior", "entropy")


def logits(*shape, dtype=torch.float64):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


X = logits(3, 4).flip(0)
PRIOR = (0.1 * torch.arange(4)).double()  # 0.1 times 3 as float32 has it, as in LOSSES


def nll(x, t):
    return -(t * x.log_softmax(-1)).sum(-1).mean()


def kl(x, prior):
    return (x.softmax(-1) * (x.log_softmax(-1) - prior.log_softmax(-1))).sum(-1).mean()


def uncertainty(x, w=None):
    h = -(x.softmax(-1) * x.log_softmax(-1)).sum(-1)
    return h.mean() if w is None else (w * h).sum() / w.sum()


def spread(x, w=None):
    w = torch.ones_like(x[:, :1]) if w is None else w
    mean = (w * x.softmax(-1)).sum(0) / w.sum()
    return (4 - (-(mean * mean.log()).sum()).exp()) / 4


def balance(x):
    chosen = F.one_hot(x.detach().argmax(-1), 4).to(x.dtype)
    return 4 * (chosen.mean(0) * x.softmax(-1).mean(0)).sum()


LOGITS = {
    name: (LOSSES[name], stock)
    for name, stock in {
        "bernoulli_nll": lambda x: F.binary_cross_entropy_with_logits(x, torch.full_like(x, 0.3)),
        "categorical_nll": lambda x: nll(x, torch.eye(4, dtype=x.dtype)[:3]),
        "cross_entropy": lambda x: nll(x, torch.full_like(x, 0.25)),
        "kl_to_uniform": lambda x: kl(x, torch.zeros_like(x)),
        "kl_to_prior": lambda x: kl(x, PRIOR),
        "entropy": uncertainty,
        "diversity": spread,
        "load_balance": balance,
        "keep_ratio": lambda x: ((x.sigmoid().mean(-1) - 0.4) ** 2).mean(),
    }.items()
}
OTHERS = {
    "bernoulli_nll of target": (
        lambda y: losses.bernoulli_nll(X, y.sigmoid()),
        lambda y: F.binary_cross_entropy_with_logits(X, y.sigmoid()),
    ),
    "bernoulli_nll of pos_weight": (
        lambda y: losses.bernoulli_nll(X, X.sigmoid(), y.exp()),
        lambda y: -(y.exp() * X.sigmoid() * F.logsigmoid(X) + (1 - X.sigmoid()) * F.logsigmoid(-X)).mean(),
    ),
    "categorical_nll of target": (
        lambda y: losses.categorical_nll(X, y.softmax(-1)),
        lambda y: nll(X, y.softmax(-1)),
    ),
    "kl_to_prior of prior": (lambda y: losses.kl_to_prior(X, y), lambda y: kl(X, y)),
    "entropy of weight": (
        lambda y: losses.entropy(X, weight=y[:, 0].exp()),
        lambda y: uncertainty(X, y[:, 0].exp()),
    ),
    "diversity of weight": (
        lambda y: losses.diversity(X, weight=y[:, 0].exp()),
        lambda y: spread(X, y[:, :1].exp()),
    ),
}
EVERY = LOGITS | OTHERS
