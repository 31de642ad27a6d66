"""What the modules that choose have in common: logits of their own or given, a rule, a tau, and what they return."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softdraw.arguments import compute_dtype
from softdraw.checks import check_bool, check_floating, count
from softdraw.laws import Law
from softdraw.laws.law import checked_rule
from softdraw.nn.tau import WithTau, kept
from softdraw.overrides import refuse_script
from softdraw.rules.pathwise import Pathwise


class Choice(NamedTuple):
    """What ``Codebook``, ``Latent``, ``Router`` and ``Gate`` return; losses and metrics are functions of it.

    Nothing is counted or summed inside of a forward pass, so a pass that activation checkpointing runs twice counts
    once.

    Args:
        value: what goes on through the model, in the dtype of the input.
        index: which one was chosen, int64; -1 where nothing was allowed. Of gates: whether they are open, bool.
        law: what was drawn from, in float32 (float64 for float64 input): probabilities, entropy, divergences.
        theta: the parameters of the law, ``law.theta`` itself. FSDP2 sees tensors alone: through this one a loss of the
            law reaches the module's parameters.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> codebook = softdraw.nn.Codebook(inputs=6, codes=8, width=4)
        >>> value, index, law, theta = codebook(torch.randn(5, 6))
        >>> value.shape, index.shape, law.batch_shape
        (torch.Size([5, 4]), torch.Size([5, 1]), torch.Size([5, 1]))
        >>> bool(law.entropy().mean() > softdraw.losses.entropy(theta) - 1e-6)
        True
    """

    value: Tensor
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride] (tuple.index, which nobody calls)
    law: Law
    theta: Tensor


class LogitsLayer(nn.Linear):
    """A linear layer that computes in float32 (float64 for float64 inputs), whatever the dtype of its parameters."""

    def forward(self, input: Tensor) -> Tensor:
        """The logits."""
        dtype, weight, bias = compute_dtype(input.dtype), self.weight, self.bias
        with full_precision(input):
            if weight.dtype == dtype and input.dtype == dtype:  # the common case first: three casts take as long as it
                return F.linear(input, weight, bias)
            return F.linear(input.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))


class Chooser(WithTau):
    """A module with a rule, whose tau is a buffer, and with a layer for its logits unless they are given."""

    layer: LogitsLayer | None
    rule: Pathwise | None

    def make_layer(self, inputs: int | None, outputs: int) -> None:
        """The layer, or none where ``inputs`` is None and logits will be given."""
        self.inputs = None if inputs is None else count("inputs", inputs, 1, "the width of x, or None for logits=")
        self.layer = None if self.inputs is None else LogitsLayer(self.inputs, outputs)

    def set_rule(self, rule: Pathwise, law: type[Law]) -> None:
        """Keep the rule, after a check that it serves the law, and a tau that is a number as a buffer."""
        self.rule = checked_rule(rule, law)
        tau = getattr(rule, "tau", None)
        if tau is not None and not isinstance(tau, Tensor):
            self.register_tau(tau)

    def rule_at(self, theta: Tensor) -> Pathwise:
        """The rule with the tau of this pass."""
        return replace(self.rule, tau=kept(self.tau, theta)) if self.has_tau else self.rule  # pyright: ignore

    def draws(self, draw: bool | None) -> bool:
        """Whether this call draws: as it says, else in training."""
        if draw is None:
            return self.training
        check_bool("draw", draw)
        return draw

    def parameters_of(
        self, x: Tensor | None, logits: Tensor | None, ending: Sequence[int]
    ) -> tuple[Tensor, torch.dtype]:
        """The logits ``(..., *ending)`` in float32 or float64, of the layer at ``x`` or those given, and the dtype of
        the input."""
        if (x is None) == (logits is None):
            raise TypeError(f"x or logits must be given, and only one, got {'neither' if x is None else 'both'}")
        if logits is not None:
            check_floating("logits", logits)
            check_ending("logits", logits, ending)
            return logits.to(compute_dtype(logits.dtype)), logits.dtype
        assert x is not None
        check_floating("x", x)
        if self.layer is None:
            raise TypeError("x was given, and this module has no layer (inputs=None), got logits=None: pass logits=")
        check_ending("x", x, (self.inputs,))
        theta = self.layer(x)
        theta = theta.to(compute_dtype(theta.dtype))
        return theta if len(ending) == 1 else theta.unflatten(-1, tuple(ending)), x.dtype

    def __prepare_scriptable__(self) -> None:
        refuse_script(f"softdraw.nn.{type(self).__name__}")

    def shown(self, *settings: str) -> str:
        """Settings, and the rule with its tau, as ``print(module)`` shows them."""
        rule = [f"rule={self.rule!r}"] if getattr(self, "rule", None) is not None else []
        return ", ".join([*settings, *rule, *([f"tau={self.shown_tau()}"] if self.has_tau else [])])


def check_ending(name: str, x: Tensor, ending: Sequence[Any]) -> None:
    """The last dimensions of ``x`` are ``ending``."""
    if x.shape[-len(ending) :] != tuple(ending):
        raise ValueError(
            f"{name} must end in the shape {tuple(ending)}, got {tuple(x.shape)}: reshape it, as {name}.unflatten does"
        )


_NOTHING = nullcontext()


def full_precision(x: Tensor | None) -> AbstractContextManager:
    """A region without autocast, for what is computed in float32."""
    if x is None or x.is_meta:
        return _NOTHING
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else _NOTHING
