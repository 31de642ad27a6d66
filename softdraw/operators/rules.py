"""The draws that rules differentiate, and the backward passes of the rules, as operations.

A draw keeps its index, 8 bytes a row, and its inputs; a gradient is one pass that reads the logits and what arrives.
Under torch.func, and where a backward pass is differentiated, the formula of the rule takes the operation's place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from softdraw import kernels
from softdraw.arguments import KernelRule, Tau
from softdraw.operators.operator import Operation

_RULE = "Tensor? tau, Tensor? seed, Tensor? rows, Tensor? mask, str name, Tensor? gap, SymInt draws, bool given"


def _many(x: Tensor, samples: int | None) -> tuple:
    return tuple(x.shape) if samples is None else (samples, *x.shape)


def _hard_index(
    logits: Tensor, seed: Tensor, rows: Tensor | None, mask: Tensor | None, samples: int | None
) -> tuple[Tensor, Tensor]:
    return kernels.body_for(logits).hard_index((logits, 1.0, seed, rows, mask, 0), samples)


def _hard_index_fake(logits: Tensor, seed: Tensor, rows: Any, mask: Any, samples: int | None) -> tuple[Tensor, Tensor]:
    shape = _many(logits, samples)
    return logits.new_empty(shape), logits.new_empty(shape[:-1], dtype=torch.int64)


hard_index = Operation(
    "hard_index",
    "(Tensor logits, Tensor seed, Tensor? rows, Tensor? mask, SymInt? samples) -> (Tensor, Tensor)",
    _hard_index,
    _hard_index_fake,
)


def _backward(operation: str) -> Callable[..., Tensor]:
    """The body of a gradient: what the kernels call ``operation``."""

    def body(
        grad: Tensor,
        x: Tensor,
        drawn: Tensor,
        tau: Tau | None,
        seed: Tensor | None,
        rows: Tensor | None,
        mask: Tensor | None,
        name: str,
        gap: float | Tensor | None,
        draws: int,
        given: bool,
    ) -> Tensor:
        # A graph has its numbers as tensors, and none where the rule has none.
        tau = 1.0 if tau is None else tau
        rule = KernelRule(name, tau, 0.0 if gap is None else float(gap), draws)
        run = getattr(kernels.body_for(x), operation)
        return run((x, tau, seed, rows, mask, 0), grad, drawn, rule, given)

    return body


rule_backward = Operation(
    "rule_backward",
    f"(Tensor grad, Tensor logits, Tensor index, {_RULE}) -> Tensor",
    _backward("rule_backward"),
    lambda grad, *rest: grad.new_empty(grad.shape),
)


def _bits(theta: Tensor, seed: Tensor, rows: Tensor | None, mask: Tensor | None, samples: int | None) -> Tensor:
    return kernels.body_for(theta).bits((theta, 1.0, seed, rows, mask, 0), samples)


bits = Operation(
    "bits",
    "(Tensor theta, Tensor seed, Tensor? rows, Tensor? mask, SymInt? samples) -> Tensor",
    _bits,
    lambda theta, seed, rows, mask, samples: theta.new_empty(_many(theta, samples)),
)


bits_backward = Operation(
    "bits_backward",
    f"(Tensor grad, Tensor theta, Tensor sample, {_RULE}) -> Tensor",
    _backward("bits_backward"),
    lambda grad, *rest: grad.new_empty(grad.shape),
)
