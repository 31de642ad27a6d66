"""Small networks, one for every seed (and every selector), side by side: R products of matrices are one."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Networks(nn.Module):
    """R perceptrons with one hidden layer: ``(..., R, B, inputs)`` -> logits ``(..., R, B, classes)``."""

    def __init__(self, count: int, inputs: int, width: int, classes: int, generator: torch.Generator) -> None:
        super().__init__()

        def weights(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(count, *shape, generator=generator) * math.sqrt(2 / shape[0]))

        self.first, self.second = weights(inputs, width), weights(width, classes)
        self.first_bias, self.second_bias = (nn.Parameter(torch.zeros(count, 1, size)) for size in (width, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the classes."""
        return (x @ self.first + self.first_bias).relu() @ self.second + self.second_bias

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        """The cross-entropy of each row in nats, ``(..., R, B)``; ``y`` is ``(R, B)``."""
        logits = self(x)
        each = F.cross_entropy(logits.flatten(0, -2), y.expand(logits.shape[:-1]).flatten(), reduction="none")
        return each.view(logits.shape[:-1])

    def errors(self, x: Tensor, y: Tensor) -> Tensor:
        """The share of the rows that each network classifies wrongly, ``(R,)``."""
        return (self(x).argmax(-1) != y).double().mean(-1)
