"""Feature gates on a real table with columns of noise: scikit-learn's breast cancer data, beside the lasso.

    python examples/select_features.py

To 30 measurements come 70 columns of noise. It prints the accuracy on held-out patients, how many columns a model uses,
and how many of those are noise: for all columns, for the lasso, and for gates.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import scale
from torch import Tensor, nn

import softdraw

REAL, NOISE = 30, 70


def data() -> list[Tensor]:
    """Measurements and noise, and the diagnosis: to train on, and held out."""
    x, y = load_breast_cancer(return_X_y=True)
    noise = torch.randn(len(x), NOISE, generator=torch.Generator().manual_seed(0))
    table = torch.cat((torch.tensor(scale(x)).float(), noise), -1)
    return list(train_test_split(table, torch.tensor(y).float(), test_size=0.4, random_state=0))


class Gated(nn.Module):
    """Gates on the columns, then a linear model."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = softdraw.nn.Gate(REAL + NOISE, law="gaussian")
        self.linear = nn.Linear(REAL + NOISE, 1)

    def forward(self, x: Tensor, **source: object) -> Tensor:
        return self.linear(self.gate(x, **source).value).squeeze(-1)


def train(x: Tensor, y: Tensor, steps: int) -> Gated:
    """A gated model, trained on all patients at once."""
    torch.manual_seed(0)
    model = Gated()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(steps):
        logits = model(x, seed=softdraw.fold_in(0, step))
        loss = F.binary_cross_entropy_with_logits(logits, y) + 0.006 * model.gate.expected_l0()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    x, held_out, y, truth = data()
    model = train(x, y, parser.parse_args().steps)
    with torch.no_grad():
        guess, used = model(held_out) > 0, model.gate().index
    found = {"gates": (guess, used)}
    for name, strength in (("all columns", 0.0), ("lasso", 1.0)):
        fit = LogisticRegression(C=0.1, l1_ratio=strength, solver="saga", max_iter=5000).fit(x.numpy(), y.numpy())
        found[name] = (torch.from_numpy(fit.predict(held_out.numpy())) > 0, torch.from_numpy(fit.coef_[0]) != 0)
    print(f"{'':<12} accuracy  columns  of noise")
    for name, (guess, used) in found.items():
        accuracy = (guess == (truth > 0)).float().mean().item()
        print(f"{name:<12} {accuracy:8.3f} {int(used.sum()):8d} {int(used[REAL:].sum()):9d}")


if __name__ == "__main__":
    main()
