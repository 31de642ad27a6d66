r"""Masked diffusion over characters: a transformer that guesses what is masked from what is not.

A noised sequence has k of its L characters replaced by a mask, a set M that is drawn uniformly. The model gives a law
:math:`p(x_i | x_{\setminus M})` for each of them, and its bound on the sequence's likelihood is

.. math:: -\log p(x) \le L \, E_{k \sim U\{1..L\}} \, E_{|M| = k} \, \frac{1}{k} \sum_{i \in M}
          -\log p(x_i | x_{\setminus M})

which is that of absorbing-state diffusion (MDLM, LLaDA) with the time integrated out: given k, time says nothing more.
It is equally the mean over all orders of a model that writes one character at a time, so such writing samples from
exactly the law that the bound is of.

Source: Sahoo et al. (2024), "Simple and effective masked diffusion language models"; Nie et al. (2025), "Large language
diffusion models", eq. 6 (the bound by k); Ou et al. (2025), "Your absorbing discrete diffusion secretly models the
conditional distributions of clean data" (why time is not needed).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import softdraw
from softdraw.recipes.diffusion.settings import HEAD, Settings

NEAR = 7  # characters that the first layer looks at together
CHOSEN = 2  # experts that a character goes to, where there are several
BALANCE = 0.01  # weight of the penalty on experts that are unevenly busy, which is 1 where they are even


class Transformer(nn.Module):
    """Characters ``(B, L)``, of which some are the mask, to logits ``(B, L, V)``. The mask is number V.

    ``shares`` is the law of single characters, ``(V,)``. The model starts from it: the last layer has weights 0 and the
    log-shares as its bias, so no step is spent on what a count can tell.
    """

    def __init__(self, shares: Tensor, settings: Settings, generator: torch.Generator) -> None:
        super().__init__()
        width = settings.width
        self.mask = len(shares)
        self.embed = nn.Embedding(self.mask + 1, width)
        self.near = nn.Conv1d(width, width, NEAR, padding=NEAR // 2)
        self.blocks = nn.ModuleList(Block(width, settings.experts) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, self.mask)
        turn = torch.arange(settings.length)[:, None] * 1e4 ** -(torch.arange(0, HEAD, 2) / HEAD)  # (L, HEAD / 2)
        self.register_buffer("turn", torch.stack((turn.cos(), turn.sin())), persistent=False)
        self._start(shares, generator)

    @torch.no_grad()
    def _start(self, shares: Tensor, generator: torch.Generator) -> None:
        """From the run's own generator: the global one is left alone."""
        for name, weight in self.named_parameters():
            if weight.dim() == 1:
                nn.init.constant_(weight, float("norm" in name and name.endswith("weight")))
            elif name.endswith(("out.weight", "down.weight", "head.weight")):  # a block starts as the identity
                nn.init.zeros_(weight)
            elif name == "embed.weight":
                nn.init.normal_(weight, generator=generator)
            else:
                nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
        self.head.bias.copy_(shares.log())

    def forward(self, x: Tensor) -> Tensor:
        """Logits for every place, masked or not; routers decide."""
        return self.routed(x)[0]

    def routed(self, x: Tensor, seeds: Tensor | None = None) -> tuple[Tensor, list[softdraw.nn.Choice]]:
        """The logits, and what the router of each layer chose, if there are any.

        Routers draw under ``seeds`` ``(B,)``, one for each sequence: what a character draws depends on its sequence,
        its place and the layer alone. Without seeds they decide.
        """
        y = self.embed(x)
        y = y + F.gelu(self.near(y.mT).mT)
        choices = []
        for i, block in enumerate(self.blocks):
            y, choice = block(y, self.turn, None if seeds is None else softdraw.fold_in(seeds, i))
            choices += [] if choice is None else [choice]
        return self.head(self.norm(y)), choices


class Block(nn.Module):
    """Attention over the whole sequence, then a layer for each character: both are added to what they are given."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), Attention(width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width) if experts == 1 else Experts(width, experts)

    def forward(self, x: Tensor, turn: Tensor, seeds: Tensor | None) -> tuple[Tensor, softdraw.nn.Choice | None]:
        x = x + self.attention(self.attention_norm(x), turn)
        y = self.feed_forward_norm(x)
        if isinstance(self.feed_forward, Experts):
            y, choice = self.feed_forward(y, seeds)
            return x + y, choice
        return x + self.feed_forward(y), None


class Attention(nn.Module):
    """Every character looks at every other; queries and keys are turned by their place, so distances count."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.into = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        query, key, value = self.into(x).unflatten(-1, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)  # (B, heads, L, HEAD)
        y = F.scaled_dot_product_attention(_turned(query, turn), _turned(key, turn), value)
        return self.out(y.transpose(1, 2).flatten(-2))


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    """Rotary places: Su et al. (2021), "RoFormer"."""
    (a, b), (cos, sin) = x.chunk(2, -1), turn
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


class FeedForward(nn.Module):
    """What is done for each character alone, ``(B, L, width)`` to the same shape: all that a block knows of it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


class Experts(nn.Module):
    """Several feed-forward layers, of which each character goes to two: drawn without replacement in training, the two
    likeliest otherwise. Each sees only the characters that come to it."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.route = softdraw.nn.Router(width, experts, CHOSEN, law="plackett-luce")
        self.experts = nn.ModuleList(FeedForward(width) for _ in range(experts))

    def forward(self, x: Tensor, seeds: Tensor | None) -> tuple[Tensor, softdraw.nn.Choice]:
        choice = self.route(x, draw=False) if seeds is None else self.route(x, draw=True, seed=seeds)
        flat, weights, index = x.flatten(0, 1), choice.value.flatten(0, 1), choice.index.flatten(0, 1)
        y = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            place, turn = (index == number).nonzero(as_tuple=True)
            y = y.index_add(0, place, weights[place, turn].unsqueeze(-1) * expert(flat[place]))
        return y.view_as(x), choice


def penalty(choices: list[softdraw.nn.Choice]) -> Tensor | float:
    """That of Switch on experts that are unevenly busy, summed over the layers and weighted; 0 without routers."""
    chosen = (torch.zeros_like(choice.theta).scatter(-1, choice.index, 1.0) for choice in choices)
    return BALANCE * sum(softdraw.losses.load_balance(c.theta, k_hot) for c, k_hot in zip(choices, chosen, strict=True))


def load(choices: list[softdraw.nn.Choice]) -> Tensor:
    """How many characters came to each expert of each layer, float64 ``(layers, experts)``."""
    return torch.stack(
        [choice.index.flatten().bincount(minlength=choice.theta.shape[-1]) for choice in choices]
    ).double()


def counts(rows: int, length: int, seed: Tensor, turn: float = 0.0) -> Tensor:
    """How many characters of each of some rows are masked: int64 ``(rows,)`` in 1 .. length.

    Each has the uniform law, and together they are spread evenly: a common shift, which is drawn, plus the row's share
    of the length, modulo the length. ``turn`` moves all of them by that share.
    """
    shift = softdraw.draw_index(torch.zeros(length, device=seed.device), seed=seed).index
    place = (torch.arange(rows, device=seed.device) / rows + turn) * length
    return 1 + (shift + place.long()) % length


def masked(count: Tensor, length: int, seeds: Tensor) -> Tensor:
    """Which characters are masked: bool ``(B, L)``, ``count`` in each row, every set of them equally likely."""
    order = softdraw.gumbel_topk(torch.zeros(len(count), length, device=count.device), length, seed=seeds)
    return order.argsort(-1) < count[:, None]


def loss(model: Transformer, x: Tensor, hidden: Tensor) -> Tensor:
    """The bound's term of each row, in nats per character, ``(B,)``; routers decide."""
    return surprise(model(x.masked_fill(hidden, model.mask)), x, hidden)


def surprise(logits: Tensor, x: Tensor, hidden: Tensor) -> Tensor:
    """The mean of -log p over what is hidden in each row, ``(B,)``."""
    nll = softdraw.losses.categorical_nll(logits, x, mask=hidden, reduction="none")
    return nll.sum(-1) / hidden.sum(-1)
