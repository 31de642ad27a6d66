"""A categorical variational autoencoder: image -> L draws from K categories -> image.

    theta = encoder(x)                                            (B, L, K) logits of q(z | x)
    z     ~ q(z | x) = prod_l Categorical(softmax(theta_l))       drawn with its gradient
    nELBO = -log p(x | z) + KL(q(z | x) || uniform)               in nats per image

Source: Jang, Gu and Poole (2017), "Categorical reparameterization with Gumbel-softmax", section 4.2;
Kingma and Welling (2014), "Auto-encoding variational Bayes", eq. 3.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from softdraw import losses
from softdraw.recipes.autoencoder.settings import Settings
from softdraw.verbs import draw


class Autoencoder(nn.Module):
    """``forward`` gives both terms of the nELBO; ``encode`` and ``decode`` are its halves.

    ``mean`` is the mean training image, ``(D,)`` in [0, 1]. The decoder starts from it: its last bias has the log-odds
    of each pixel. A decoder that starts from grey spends its first steps on what all images share, and the gradients of
    those steps push the logits of all images the same way. On images of 28x28 every latent then ends with one code for
    all images; its softmax is saturated, so training does not recover.
    """

    def __init__(self, mean: Tensor, settings: Settings, generator: torch.Generator) -> None:
        super().__init__()
        pixels = len(mean)
        self.groups, self.categories = settings.groups, settings.categories
        codes = self.groups * self.categories
        self.encoder = _mlp(pixels, settings.width, codes)
        self.rule, self.has_tau = settings.pathwise(), settings.has_tau
        self.tau = settings.tau_start  # a TauScheduler writes it
        self.decoder = _mlp(codes, settings.width, pixels)
        for weight in self.parameters():  # from the run's own generator: the global one is left alone
            if weight.dim() == 2:
                nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
            else:
                nn.init.zeros_(weight)
        with torch.no_grad():
            # Bounded, so that a dark pixel can light up.
            self.decoder[-1].get_parameter("bias").copy_(mean.clamp(0.01, 0.99).logit())

    def encode(self, x: Tensor) -> Tensor:
        """Logits of the codes. No activation follows the last layer: a ReLU there would bar every category below 0."""
        return self.encoder(2 * x - 1).unflatten(-1, (self.groups, self.categories))  # (B, L, K)

    def decode(self, z: Tensor) -> Tensor:
        """Logits of the pixels."""
        return self.decoder(z.flatten(-2))  # (..., D)

    def draw(self, logits: Tensor, seed: Tensor, ids: Tensor) -> Tensor:
        """A training draw, ``(B, L, K)``, with the gradient of the run's rule."""
        rule = replace(self.rule, tau=self.tau) if self.has_tau else self.rule
        return draw(logits, rule, seed=seed, rows=ids)

    def forward(self, x: Tensor, seed: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction and KL terms, each ``(B,)``; ``ids`` keys the draw of each image, wherever it is."""
        logits = self.encode(x)
        z = self.draw(logits, seed, ids)
        return reconstruction(self.decode(z), x), kl_of_images(logits)


def _mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
    )


def reconstruction(pixel_logits: Tensor, x: Tensor) -> Tensor:
    """-log p(x | z) of Bernoulli pixels, in nats per image; a grey x is the share of its bits that are on."""
    return losses.bernoulli_nll(pixel_logits, x.expand_as(pixel_logits), reduction="none").sum(-1)


def kl_of_images(logits: Tensor) -> Tensor:
    """KL(q || uniform) = sum_l (log K - H(q_l)), in nats per image: exact, so it adds no variance."""
    return kl_of_latents(logits).sum(-1)  # (B, L, K) -> (B,)


def kl_of_latents(logits: Tensor) -> Tensor:
    """log K - H(q_l), what each latent carries, in nats per image."""
    return losses.kl_to_uniform(logits, reduction="none")  # (B, L, K) -> (B, L)
