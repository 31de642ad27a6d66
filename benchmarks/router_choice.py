"""What the gradient of the choice does for ``nn.Router(law="subset", rule=...)``, on a toy with an exact answer.

Each token belongs to one of eight kinds, and for each kind another two of eight fixed experts, in the mean, give the
target. Only a linear router learns. Two of eight makes 28 sets, so the expected loss and its gradient for the logits
are sums over all of them. Printed for each rule: how the mean of its gradient over many draws lies to the exact one at
the start (cosine, length), the deviation of a draw beside the length of the exact one, and after training the expected
loss of the draws, the loss of decisions, and how often these are the right two.

    python benchmarks/router_choice.py
"""

from __future__ import annotations

import argparse
import itertools
import statistics

import torch
from torch import Tensor

import softdraw
from softdraw.nn import Choice, Router

KINDS, EXPERTS, K, WIDTH, TOKENS, DRAWS = 8, 8, 2, 16, 256, 400
RULES = {
    "none (weights alone)": None,
    "`StraightThrough()`": softdraw.StraightThrough(),
    "`ZGR()`": softdraw.ZGR(),
}


class Toy:
    """Tokens x, what each expert makes of them, the right experts, and the target."""

    def __init__(self, seed: int) -> None:
        made = torch.Generator().manual_seed(seed)
        pairs = torch.stack([torch.randperm(EXPERTS, generator=made)[:K].sort().values for _ in range(KINDS)])
        centres = torch.randn(KINDS, WIDTH, generator=made)
        kind = torch.randint(KINDS, (TOKENS,), generator=made)
        self.x = centres[kind] + 0.3 * torch.randn(TOKENS, WIDTH, generator=made)
        experts = torch.randn(EXPERTS, WIDTH, WIDTH, generator=made) / WIDTH**0.5
        self.outputs = torch.einsum("nd,edf->nef", self.x, experts)
        self.right = pairs[kind]
        self.target = self.outputs.gather(1, self.right.unsqueeze(-1).expand(-1, -1, WIDTH)).mean(1)

    def loss(self, weights: Tensor, index: Tensor) -> Tensor:
        """The squared error of each token."""
        chosen = self.outputs.gather(1, index.unsqueeze(-1).expand(-1, -1, WIDTH))
        return ((weights.unsqueeze(-1) * chosen).sum(1) - self.target).square().mean(-1)

    def expected(self, theta: Tensor) -> Tensor:
        """The expected loss over the draws of the router, exactly."""
        law, total = softdraw.Subset(theta, K), torch.zeros(())
        for pair in itertools.combinations(range(EXPERTS), K):
            index = torch.tensor(pair).expand(TOKENS, -1)
            z = torch.zeros(TOKENS, EXPERTS).scatter(1, index, 1.0)
            loss = self.loss(theta.gather(1, index).softmax(-1), index)
            total = total + (law.log_prob(z).exp() * loss).mean()
        return total


def gradients(toy: Toy, rule: object) -> tuple[float, float, float]:
    """Cosine and length of the mean gradient beside the exact one, and the deviation of a draw beside its length."""
    router = Router(None, EXPERTS, K, law="subset", rule=rule)  # pyright: ignore[reportArgumentType]
    theta = torch.randn(TOKENS, EXPERTS, generator=torch.Generator().manual_seed(1)).requires_grad_()
    (exact,) = torch.autograd.grad(toy.expected(theta), theta)
    total, squares = torch.zeros_like(exact), 0.0
    for seed in range(DRAWS):
        choice: Choice = router(logits=theta, seed=seed)
        (g,) = torch.autograd.grad(toy.loss(choice.value, choice.index).mean(), theta)
        total += g
        squares += float(g.square().sum())
    mean, length = total / DRAWS, float(exact.norm())
    cosine = float((mean * exact).sum() / (mean.norm() * length))
    return cosine, float(mean.norm()) / length, (squares / DRAWS - float(mean.square().sum())) ** 0.5 / length


def trained(toy: Toy, rule: object, seed: int, steps: int) -> tuple[float, float, float]:
    """After training: the expected loss of draws, the loss of decisions, and the share of tokens with the right two."""
    torch.manual_seed(seed)
    router = Router(WIDTH, EXPERTS, K, law="subset", rule=rule)  # pyright: ignore[reportArgumentType]
    optimizer = torch.optim.Adam(router.parameters(), 0.02)
    for step in range(steps):
        choice = router(toy.x, seed=step)
        optimizer.zero_grad()
        toy.loss(choice.value, choice.index).mean().backward()
        optimizer.step()
    with torch.no_grad():
        decided = router.eval()(toy.x)
        right = (decided.index.sort().values == toy.right).all(-1).float().mean()
        return float(toy.expected(decided.theta)), float(toy.loss(*decided[:2]).mean()), float(right)


def main() -> None:
    """One line for each rule, with means and standard errors over the toys."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    given = parser.parse_args()
    toys = [Toy(seed) for seed in range(given.seeds)]
    print("| rule | cosine | length | deviation | loss, drawn | loss, decided | right two |")
    print("|---|---|---|---|---|---|---|")
    for name, rule in RULES.items():
        found = [trained(toy, rule, seed, given.steps) for seed, toy in enumerate(toys)]
        cells = [f"{g:.2f}" for g in gradients(toys[0], rule)]
        for numbers in zip(*found, strict=True):
            error = statistics.stdev(numbers) / len(numbers) ** 0.5 if len(numbers) > 1 else 0.0
            cells.append(f"{statistics.mean(numbers):.3f} ± {error:.3f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
