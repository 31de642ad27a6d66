"""What a gradient rule is. A pathwise rule maps the gradient at the sample to one at the logits; a score-function rule
estimates the gradient from values of f alone. Both are frozen dataclasses of their hyper-parameters.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from softdraw import operations
from softdraw.arguments import prepare_tau, tau_tensor

if TYPE_CHECKING:
    from softdraw.rules.noise import Noise
    from softdraw.rules.objective import Objective


class Pathwise(ABC):
    """A rule for ``draw`` and ``expect``: the sample is exact, and ``vjp`` says what gradient passes back through it.

    ``vjp`` sees tensors of shape ``(samples, *batch, C)`` in float32 or float64, forbidden categories at -inf logits
    and with zero gradient; dim, mask, dtype, sampling and autograd are the machinery's (``softdraw.pathwise``).
    It must be differentiable, linear in ``grad``, O(C) in memory a row, and must draw nothing but from ``noise``.
    """

    @abstractmethod
    def vjp(self, logits: Tensor, sample: Tensor, grad: Tensor, noise: Noise) -> Tensor:
        """The gradient for ``logits`` given the one-hot ``sample`` and the gradient that arrives at it."""

    def forward(self, logits: Tensor, sample: Tensor, noise: Noise) -> Tensor | None:
        """What is returned in place of the exact sample, differentiable; None (the default) for the sample itself."""
        return None

    def operation(self, logits: Tensor, seed: Tensor, rows: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """One plain draw by an operation of the library that is this very rule, where there is one; else None."""
        return None


class ScoreFunction(ABC):
    """A rule for ``expect``: it needs values of f only, so f may be a black box."""

    binary_only = False

    @abstractmethod
    def estimate(self, objective: Objective) -> Tensor:
        """A tensor of shape ``batch`` whose value estimates E[f] and whose gradient estimates its gradient."""


def softmax(logits: Tensor, tau: float | Tensor = 1.0) -> Tensor:
    """softmax(logits / tau), safe for any tau and for -inf; a row with nothing allowed is all zero."""
    return operations.gumbel_softmax_soft(logits, prepare_tau(tau, logits, logits.dim() - 1), None, None, None, 0)


def softmax_vjp(p: Tensor, grad: Tensor) -> Tensor:
    """J(p) g = p (g - <p, g>), the softmax's Jacobian times a vector in O(C)."""
    return p * (grad - (p * grad).sum(-1, keepdim=True))


def per_row(tau: float | Tensor, logits: Tensor) -> Tensor:
    """``tau`` as a tensor that broadcasts to ``logits``, in its dtype."""
    return tau_tensor(tau, logits, logits.dim() - 1).to(logits.dtype)


def check_tau(rule: object, tau: object, name: str = "tau", learned: bool = False) -> None:
    """``tau`` is a positive number or a floating tensor; one that wants a gradient must be able to get it."""
    owner = type(rule).__name__
    if isinstance(tau, Tensor):
        if not tau.is_floating_point():
            raise TypeError(f"{name} of {owner} must be floating point, got a tensor of {tau.dtype}: write tau.float()")
        if tau.requires_grad and not learned:
            raise ValueError(
                f"{name} of {owner} requires a gradient, and this rule gives it none: write tau.detach(), "
                "or learn it through GumbelSoftmax or softdraw.gumbel_softmax"
            )
    elif isinstance(tau, bool) or not isinstance(tau, (int, float)):
        raise TypeError(f"{name} of {owner} must be a float or a floating-point tensor, got {type(tau).__name__}")
    elif not 0 < tau < math.inf:
        raise ValueError(f"{name} of {owner} must be positive and finite, got {tau}")


def check_count(rule: object, name: str, value: object, least: int = 1) -> None:
    """``value`` is an int of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} of {type(rule).__name__} must be an int, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} of {type(rule).__name__} must be at least {least}, got {value}")


def score(weight: Tensor, log_prob: Tensor) -> Tensor:
    """Zero, with the gradient weight * grad log_prob: what every score-function estimator adds to a value."""
    return weight * (log_prob - log_prob.detach())


def silent(x: Tensor) -> Tensor:
    """Zero, with the gradient of x."""
    return x - x.detach()


def one_hot(index: Tensor, categories: int, dtype: torch.dtype) -> Tensor:
    """One-hots of indices; an index of -1 gives a row of zeros."""
    return (torch.arange(categories, device=index.device) == index.unsqueeze(-1)).to(dtype)
