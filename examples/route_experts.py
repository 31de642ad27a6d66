"""A mixture of experts on a real table: scikit-learn's digits as 64 columns, beside one linear model.

    python examples/route_experts.py

Every expert is linear. What is not linear is the choice of two of eight experts for each row. It prints the accuracy on
held-out rows and how many of them each expert gets.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import softdraw

EXPERTS, CHOSEN, CLASSES = 8, 2, 10


class Mixture(nn.Module):
    """Linear experts, of which a router chooses two for every row."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.route = softdraw.nn.Router(width, EXPERTS, CHOSEN, law="plackett-luce")
        self.experts = nn.Linear(width, EXPERTS * CLASSES)

    def forward(self, x: Tensor, **source: object) -> tuple[Tensor, softdraw.nn.Choice]:
        choice = self.route(x, **source)
        every = self.experts(x).unflatten(-1, (EXPERTS, CLASSES))  # few and small: all are computed
        chosen = every.gather(1, choice.index.unsqueeze(-1).expand(-1, -1, CLASSES))
        return (choice.value.unsqueeze(-1) * chosen).sum(1), choice


def data() -> list[Tensor]:
    """Pixels from 0 to 1 and the digit: rows to train on, and held out."""
    digits = load_digits()
    x, y = torch.tensor(digits.data).float() / 16, torch.tensor(digits.target)
    return list(train_test_split(x, y, test_size=0.4, random_state=0))


def train(x: Tensor, y: Tensor, steps: int) -> Mixture:
    """A mixture trained on all rows at once."""
    torch.manual_seed(0)
    model = Mixture(x.shape[-1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.05)
    for step in range(steps):
        logits, choice = model(x, seed=softdraw.fold_in(0, step))
        balance = softdraw.losses.squared_cv(choice.law.probs) + 0.1 * softdraw.losses.router_z(choice.theta)
        loss = F.cross_entropy(logits, y) + 0.01 * balance
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    x, held_out, y, truth = data()
    model = train(x, y, parser.parse_args().steps)
    with torch.no_grad():
        logits, choice = model(held_out)
    linear = LogisticRegression(max_iter=1000).fit(x.numpy(), y.numpy()).predict(held_out.numpy())
    for name, guess in (("one linear model", torch.from_numpy(linear)), ("8 experts, 2 a row", logits.argmax(-1))):
        print(f"{name:<20} {(guess == truth).float().mean().item():.3f}")
    print("rows of each expert:", choice.index.flatten().bincount(minlength=EXPERTS).tolist())


if __name__ == "__main__":
    main()
