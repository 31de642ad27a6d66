"""What k of n items cost: the numbers of ``softdraw.Subset``, beside the log-space recursion in torch.

    python benchmarks/subsets.py            # on two threads; some seconds

The recursion is L[j] = logaddexp(L[j], theta_i + L[j - 1]), item after item, as published code has it. Its marginals
are the gradient that autograd makes of it. Times are medians of alternating rounds, in milliseconds.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import softdraw


def recursion(theta: Tensor, k: int) -> Tensor:
    """log Z in log space."""
    table = torch.full((*theta.shape[:-1], k + 1), -torch.inf, dtype=theta.dtype)
    table[..., 0] = 0
    for t in theta.unbind(-1):
        taken = torch.logaddexp(table[..., 1:], t.unsqueeze(-1) + table[..., :-1])
        table = torch.cat((table[..., :1], taken), -1)
    return table[..., k]


def marginals(theta: Tensor, k: int) -> Tensor:
    """The gradient of log Z."""
    leaf = theta.detach().clone().requires_grad_()
    return torch.autograd.grad(recursion(leaf, k).sum(), leaf)[0]


def milliseconds(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Medians; a first round counts nothing."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for count in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if count:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(found) for name, found in times.items()}


def numbers(theta: Tensor, k: int) -> dict[str, Callable[[], Any]]:
    """One call each of what a training step may ask for."""
    law, g = softdraw.Subset(theta, k), theta.flip(-1)
    calls: dict[str, Callable[[], Any]] = {
        "log_normalizer": law.log_normalizer,
        "mean": lambda: law.mean,
        "sample": lambda: law.sample(seed=0),
        "covariance_product": lambda: law.covariance_product(g),
    }
    return calls | {"all four": lambda: [call() for call in calls.values()]}


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(2)
    generator = torch.Generator().manual_seed(0)
    theta, k = torch.randn(256, 100, generator=generator), 10
    others = {"recursion: log Z": lambda: recursion(theta, k), "recursion: marginals": lambda: marginals(theta, k)}
    print(f"256 rows of n=100, k={k}")
    for name, ms in milliseconds(numbers(theta, k) | others, 15).items():
        print(f"  {name:22}{ms:9.2f} ms")
    row, k = torch.randn(100_000, generator=generator), 1000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"one row of n=100,000, k={k}")
    for name, ms in milliseconds(numbers(row, k), 5).items():
        print(f"  {name:22}{ms:9.2f} ms")
    print(f"  memory {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:.0f} MB")
    wide = softdraw.Subset(row.double(), k).log_normalizer().item()
    print(f"  log Z {softdraw.Subset(row, k).log_normalizer().item() / wide - 1:+.1e} of itself from float64")
    print("growth: all four, one row; ns is the time divided by n k")
    for n, k in ((1000, 10), (1000, 100), (10_000, 10), (10_000, 100), (10_000, 1000), (100_000, 100), (100_000, 1000)):
        ms = milliseconds({"all": numbers(torch.randn(n, generator=generator), k)["all four"]}, 5)["all"]
        print(f"  n={n:<8} k={k:<6}{ms:9.2f} ms {1e6 * ms / n / k:8.2f} ns")


if __name__ == "__main__":
    main()
