"""The two tests that a conformance check needs, by torch's incomplete gamma functions."""

from __future__ import annotations

import torch
from torch import Tensor


def chi_square(counts: Tensor, probabilities: Tensor, fitted: int = 0) -> float:
    """The probability that counts of this law are as far from what is expected, or farther (Pearson's test).

    ``fitted`` numbers of the law were taken from the counts. Counts of what has no probability make the result 0. The
    test is good where every expected count is at least 5.
    """
    counts, p = counts.flatten().double(), probabilities.flatten().double()
    possible = p > 0
    if bool(counts[~possible].any()):
        return 0.0
    expected = counts.sum() * p[possible]
    statistic = ((counts[possible] - expected) ** 2 / expected).sum()
    freedom = torch.tensor((int(possible.sum()) - 1 - fitted) / 2, dtype=torch.float64, device="cpu")
    return torch.special.gammaincc(freedom, statistic / 2).item()


def poisson(count: int, expected: float) -> float:
    """The probability that a Poisson count is as far out as this one, or farther, on its side of the mean."""
    mean = torch.tensor(expected, dtype=torch.float64, device="cpu")
    at_most = torch.special.gammaincc(torch.tensor(count + 1.0, dtype=torch.float64, device="cpu"), mean)
    at_least = (
        torch.special.gammainc(torch.tensor(float(count), dtype=torch.float64, device="cpu"), mean) if count else 1.0
    )
    return min(float(at_most), float(at_least))
