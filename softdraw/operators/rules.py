"""The draws that rules differentiate, and the backward passes of the rules, as operations.

A draw keeps its index, 8 bytes a row, and its inputs; a gradient is one pass that reads the logits and what arrives.
Under torch.func, and where a backward pass is differentiated, the formula of the rule takes the operation's place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from softdraw import kernels
from softdraw.arguments import Fields, KernelRule, Tau
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


class Gradient(Operation):
    """The gradient of a draw under a rule: what the kernels call ``name``. ``drawn`` names the input that has the
    draw. Eager code calls it ``at_once``, with a rule; an operator has its numbers one by one."""

    def __init__(self, name: str, drawn: str) -> None:
        schema = f"(Tensor grad, Tensor logits, Tensor {drawn}, {_RULE}) -> Tensor"
        super().__init__(name, schema, self._body, lambda grad, *rest: grad.new_empty(grad.shape))
        self._name = name

    def at_once(self, draw: Fields, grad: Tensor, drawn: Tensor, rule: KernelRule, given: bool) -> Tensor:
        """The gradient for the logits of the draw, of the shape of ``grad``."""
        return getattr(kernels.body_for(draw[0]), self._name)(draw, grad, drawn, rule, given)

    def _body(
        self,
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
        return self.at_once((x, tau, seed, rows, mask, 0), grad, drawn, rule, given)


rule_backward = Gradient("rule_backward", "index")


def _bits(theta: Tensor, seed: Tensor, rows: Tensor | None, mask: Tensor | None, samples: int | None) -> Tensor:
    return kernels.body_for(theta).bits((theta, 1.0, seed, rows, mask, 0), samples)


bits = Operation(
    "bits",
    "(Tensor theta, Tensor seed, Tensor? rows, Tensor? mask, SymInt? samples) -> Tensor",
    _bits,
    lambda theta, seed, rows, mask, samples: theta.new_empty(_many(theta, samples)),
)


bits_backward = Gradient("bits_backward", "sample")
