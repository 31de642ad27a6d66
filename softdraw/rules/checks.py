"""One check for each kind of hyper-parameter of a rule; an error names the rule and the parameter."""

from __future__ import annotations

import math

from torch import Tensor

from softdraw.arguments import number_tau, tau_error
from softdraw.checks import check_floating, check_real, integer, number
from softdraw.tensors import is_plain


def check_tau(rule: object, tau: object, name: str = "tau", learned: bool = False) -> None:
    """``tau`` is a positive number or a floating tensor; one that wants a gradient must be able to get it."""
    name = f"{name} of {type(rule).__name__}"
    if not isinstance(tau, Tensor):
        number_tau(name, tau)
        return
    check_floating(name, tau)
    check_positive(name, tau)
    if tau.requires_grad and not learned:
        raise ValueError(
            f"{name} requires a gradient, and this rule gives it none: write tau.detach(), "
            "or learn it through GumbelSoftmax or softdraw.gumbel_softmax"
        )


def check_positive(name: str, tau: Tensor) -> None:
    """Every value of ``tau`` is positive and finite, where that can be read without waiting for a device. Elsewhere the
    kernel that uses it asks."""
    if is_plain(tau) and tau.is_cpu and not bool(((tau > 0) & (tau < math.inf)).all()):
        raise tau_error(f"values from {tau.min().item()} to {tau.max().item()}", name)


def check_count(rule: object, name: str, value: object, least: int = 1) -> None:
    """``value`` is an int of at least ``least``."""
    name = f"{name} of {type(rule).__name__}"
    if integer(name, value, f"at least {least}") < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def check_weight(rule: object, name: str, value: object) -> None:
    """``value`` is a finite number or a real tensor, such as a baseline or the weight of a control variate."""
    name = f"{name} of {type(rule).__name__}"
    if isinstance(value, Tensor):
        check_real(name, value)
    elif not math.isfinite(number(name, value, "a number or a real tensor")):
        raise ValueError(f"{name} must be finite, got {value}: write 0.0 for none")
