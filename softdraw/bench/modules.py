"""``modules``: a training step of each module of ``softdraw.nn``, beside the library or the lines that it replaces.

A step is the forward pass, the penalty that belongs to the module, and the backward pass to the input and to every
parameter. The optimizer is the same for all, and is left out. ``cols`` are the codes, experts or gates; a vector of
``WIDTH`` numbers comes in. The rows of logits are shared out to the groups of a codebook and to the latents. Bytes that
must move are those of the draw with its gradient, without the layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, distributions, nn

from softdraw import losses
from softdraw.bench.line import Gradient, Line, Ways, imported
from softdraw.nn import Codebook, Gate, Latent, Router
from softdraw.rules.straight_through_gumbel import StraightThroughGumbel

WIDTH = 64  # numbers of a vector that comes in
GROUPS, LATENTS, CHOSEN = 2, 32, 2  # as in wav2vec 2.0, Dreamer and Mixtral
TAU = 2.0  # wav2vec 2.0's at its start
FREE, REPRESENTATION, UNIMIX = 1.0, 0.1, 0.01  # Dreamer's
BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1  # of hard-concrete gates
WEIGHT = 0.1  # of a penalty beside the value

_Module = TypeVar("_Module", bound=nn.Module)


class Step(Gradient):
    """A forward and a backward pass through a module: gradients for its input and for every parameter."""

    def __init__(self, module: nn.Module, f: Callable[..., Tensor], *leaves: Tensor) -> None:
        self.taken = len(leaves)
        super().__init__(f, *leaves)
        self.leaves = self.inputs = (*self.leaves, *module.parameters())

    def forward(self) -> Tensor:
        """The forward pass alone."""
        return self.f(*self.inputs[: self.taken])

    def __call__(self) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.forward(), self.leaves, self.arriving)


def _vectors(x: Tensor, rows: int, seed: int = 3) -> Tensor:
    """What comes in: ``(rows, WIDTH)`` on the device and in the dtype of the logits."""
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed)).to(x.device, x.dtype)


def _like(module: _Module, x: Tensor) -> _Module:
    return module.to(x.device, x.dtype).train()


def codebook(x: Tensor) -> Ways:
    """The quantiser of wav2vec 2.0, with its penalty on codes that are seldom used."""
    rows, codes = x.shape
    groups = math.gcd(rows, GROUPS)
    vectors = _vectors(x, rows // groups)
    ours = _like(Codebook(WIDTH, codes, WIDTH, groups, rule=StraightThroughGumbel(TAU)), x)

    def step(vectors: Tensor) -> Tensor:
        choice = ours(vectors)
        return choice.value + WEIGHT * losses.diversity(choice.theta, group_dim=-2)

    calls: Ways = {"softdraw": Step(ours, step, vectors)}
    for name, (package, peer) in QUANTISERS.items():
        if find_spec(imported(package)) is not None:
            module, f = peer(codes, groups)
            calls[name] = Step(_like(module, x), f, vectors)
    return calls


def _transformers(codes: int, groups: int) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    from transformers import Wav2Vec2Config  # pyright: ignore[reportMissingImports]
    from transformers.models.wav2vec2.modeling_wav2vec2 import (  # pyright: ignore[reportMissingImports]
        Wav2Vec2GumbelVectorQuantizer,
    )

    config = Wav2Vec2Config(
        num_codevector_groups=groups, num_codevectors_per_group=codes, codevector_dim=WIDTH, conv_dim=(WIDTH,) * 7
    )
    module = Wav2Vec2GumbelVectorQuantizer(config)
    module.temperature = TAU  # pyright: ignore[reportAttributeAccessIssue] (an int, as it is at first)
    nn.init.normal_(module.codevectors)

    def step(vectors: Tensor) -> Tensor:
        value, perplexity = module(vectors.unsqueeze(0))
        return value.squeeze(0) + WEIGHT * (1 - perplexity / (groups * codes))

    return module, step


def _vector_quantize(codes: int, groups: int) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The nearest that it has: a draw by the distance to learned codes, one codebook a group, without its other losses.
    It has no logits layer and no penalty on the use of codes, so it does less."""
    from vector_quantize_pytorch import VectorQuantize  # pyright: ignore[reportMissingImports]

    settings = {"stochastic_sample_codes": True, "sample_codebook_temp": TAU, "rotation_trick": False}
    learned = {"learnable_codebook": True, "ema_update": False, "commitment_weight": 1.0}
    module = VectorQuantize(
        WIDTH,
        codes,
        codebook_dim=WIDTH // groups,
        heads=groups,
        separate_codebook_per_head=groups > 1,
        **settings,
        **learned,
    )

    def step(vectors: Tensor) -> Tensor:
        value, _, penalty = module(vectors.unsqueeze(0))
        return value.squeeze(0) + WEIGHT * penalty

    return module, step


# The versions that the figures in benchmarks/README.md were taken with.
QUANTISERS: dict[str, tuple[str, Callable[[int, int], tuple[nn.Module, Any]]]] = {
    "transformers": ("transformers==5.24.0", _transformers),
    "vq": ("vector-quantize-pytorch==1.32.0", _vector_quantize),
}


def latent(x: Tensor) -> Ways:
    """Dreamer's latents: a draw of the posterior, and the balanced divergence from the prior."""
    rows, codes = x.shape
    latents = math.gcd(rows, LATENTS)
    seen, state = (_vectors(x, rows // latents, seed) for seed in (3, 4))
    pair = _like(nn.ModuleList(Latent(WIDTH, latents, codes, unimix=UNIMIX) for _ in range(2)), x)
    layers = _like(nn.ModuleList(nn.Linear(WIDTH, latents * codes) for _ in range(2)), x)
    posterior, prior = pair

    def step(seen: Tensor, state: Tensor) -> Tensor:
        after, before = posterior(seen), prior(state, draw=False)
        divergence = losses.balanced_kl(after.law, before.law, free=FREE, dynamics=1.0, representation=REPRESENTATION)
        return after.value + divergence

    shape = (latents, codes)
    return {
        "softdraw": Step(pair, step, seen, state),
        "by hand": Step(layers, partial(latent_by_hand, layers, shape), seen, state),
    }


def latent_by_hand(layers: nn.ModuleList, shape: tuple[int, int], seen: Tensor, state: Tensor) -> Tensor:
    """As published code has it, by torch.distributions."""
    after, before = (
        _mixed(layer(x).unflatten(-1, shape).float()) for layer, x in zip(layers, (seen, state), strict=True)
    )
    dynamics = _kl(_law(after.detach()), _law(before)).sum(-1).clamp_min(FREE)
    representation = _kl(_law(after), _law(before.detach())).sum(-1).clamp_min(FREE)
    value = _straight_through(after)
    return value.to(seen.dtype) + (dynamics + REPRESENTATION * representation).mean()


def _mixed(logits: Tensor) -> Tensor:
    return (1 - UNIMIX) * logits.softmax(-1) + UNIMIX / logits.shape[-1]


def _straight_through(probs: Tensor) -> Tensor:
    return distributions.OneHotCategoricalStraightThrough(probs=probs).rsample()


def _law(probs: Tensor) -> distributions.OneHotCategorical:
    return distributions.OneHotCategorical(probs=probs)


_kl = distributions.kl_divergence


def router(x: Tensor) -> Ways:
    """Noisy top-k with a penalty on uneven use."""
    rows, experts = x.shape
    k = min(CHOSEN, experts)
    vectors = _vectors(x, rows)
    ours = _like(Router(WIDTH, experts, k), x)
    layers = _like(nn.ModuleList((nn.Linear(WIDTH, experts), nn.Linear(WIDTH, experts, bias=False))), x)

    def step(vectors: Tensor) -> Tensor:
        choice = ours(vectors)
        return choice.value + WEIGHT * losses.squared_cv(choice.law.probs)

    return {
        "softdraw": Step(ours, step, vectors),
        "by hand": Step(layers, lambda vectors: router_by_hand(layers, k, vectors)[0], vectors),
    }


def _normal(x: Tensor) -> Tensor:
    return torch.randn_like(x)


def router_by_hand(layers: nn.ModuleList, k: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Equations 3 to 5 of Shazeer et al. (2017), the noise from the global generator, logits in float32."""
    layer, scale = layers
    clean = layer(x).float()
    noisy = clean + _normal(clean) * F.softplus(scale(x).float())
    best, index = noisy.topk(k, dim=-1)
    weights = best.softmax(-1).to(x.dtype)
    load = clean.softmax(-1).sum(0)
    return weights + WEIGHT * (load.var(unbiased=False) / load.mean() ** 2).to(x.dtype), index


def gate(x: Tensor) -> Ways:
    """Hard-concrete gates, each row its own draw, with the expected number of open ones."""
    ours = _like(Gate(x.shape[-1]), x)
    theta = _like(nn.ParameterList([torch.zeros(x.shape[-1])]), x)

    def step(x: Tensor) -> Tensor:
        return ours(x).value + WEIGHT * ours.expected_l0().to(x.dtype)

    return {"softdraw": Step(ours, step, x), "by hand": Step(theta, partial(gate_by_hand, theta), x)}


def _uniform(x: Tensor) -> Tensor:
    return torch.empty(x.shape, device=x.device).uniform_(1e-6, 1 - 1e-6)


def gate_by_hand(parameters: nn.ParameterList, x: Tensor) -> Tensor:
    """Equations 10 to 12 of Louizos et al. (2018), with uniform noise kept away from 0 and 1, as people write it."""
    theta = parameters[0].float()
    u = _uniform(x)
    s = torch.sigmoid((u.log() - (1 - u).log() + theta) / BETA)
    z = (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)
    penalty = torch.sigmoid(theta - BETA * math.log(-GAMMA / ZETA)).sum()
    return x * z.to(x.dtype) + (WEIGHT * penalty).to(x.dtype)


LINES = {
    "Codebook": Line(codebook, dense=5, peers={name: package for name, (package, _) in QUANTISERS.items()}),
    "Latent": Line(latent, dense=5),
    "Router": Line(router, dense=5),
    "Gate": Line(gate, dense=5),
}
