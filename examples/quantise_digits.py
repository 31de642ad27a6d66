"""A vector-quantised autoencoder on scikit-learn's digits: eight codes of 16 each, beside the mean image and PCA.

    python examples/quantise_digits.py

A digit of 64 pixels becomes 8 codes, 32 bits. It prints the mean squared error of held-out digits for the autoencoder,
the mean image, and PCA with 8 numbers, which takes 8 floats in place of 8 codes. Then how the codes are used.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import softdraw


class Autoencoder(nn.Module):
    """Digits to codes to digits."""

    def __init__(self, groups: int, codes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU())
        self.quantise = softdraw.nn.Codebook(128, codes, 16 * groups, groups, rule=softdraw.ReinMax(tau=1.1))
        self.decoder = nn.Sequential(nn.Linear(16 * groups, 128), nn.ReLU(), nn.Linear(128, 64))

    def forward(self, x: Tensor, **source: object) -> tuple[Tensor, softdraw.nn.Choice]:
        choice = self.quantise(self.encoder(x), **source)
        return self.decoder(choice.value), choice


def data() -> tuple[Tensor, Tensor]:
    """Digits with pixels from 0 to 1: those to train on, and those held out."""
    pixels = torch.tensor(load_digits().data, dtype=torch.float32) / 16
    train, test = train_test_split(pixels, test_size=0.25, random_state=0)
    return train, test


def train(x: Tensor, steps: int, groups: int = 8, codes: int = 16) -> Autoencoder:
    """An autoencoder trained on batches of 128."""
    torch.manual_seed(0)
    model = Autoencoder(groups, codes)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(steps):
        seed = softdraw.fold_in(0, step)
        rows = softdraw.gumbel_noise((len(x),), seed=softdraw.fold_in(seed, "batch")).topk(128).indices
        y, choice = model(x[rows], seed=softdraw.fold_in(seed, "quantise"), rows=rows)
        loss = (y - x[rows]).square().mean() + 0.001 * softdraw.losses.diversity(choice.theta, group_dim=-2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    x, held_out = data()
    model = train(x, parser.parse_args().steps)
    with torch.no_grad():
        y, choice = model(held_out)
    pca = PCA(8).fit(x.numpy())
    projected = torch.from_numpy(pca.inverse_transform(pca.transform(held_out.numpy())))
    rows = {"mean image": x.mean(0).expand_as(held_out), "PCA, 8 floats": projected, "8 codes, 32 bits": y}
    for name, image in rows.items():
        print(f"{name:<18} {(image - held_out).square().mean().item():.4f}")
    usage = softdraw.metrics.code_usage(choice.index, num_codes=16, group_dim=-1)
    print(f"perplexity {usage['perplexity_hard']:.1f} of 16, active codes {usage['active_codes']} of 128")


if __name__ == "__main__":
    main()
