"""Checks of single numbers that a user gives: a float or an int comes out, or an error says what to write."""

from __future__ import annotations

import math
import numbers
import operator
import reprlib
from typing import Any

import torch
from torch import Tensor

_REAL = (numbers.Real, torch.SymInt, torch.SymFloat)  # a traced size or step is a number


def described(value: object) -> str:
    """``value`` in a few words, for an error."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} and shape {tuple(value.shape)}"
    if value is None or isinstance(value, (str, *_REAL)):
        return reprlib.repr(value)
    return type(value).__name__


def number(name: str, value: Any, advice: str = "write a float") -> float:
    """``value`` as a float: a Python or NumPy number, or a real tensor without dimensions and without a gradient."""
    if isinstance(value, Tensor) and value.dim() == 0 and not value.requires_grad and not value.is_meta:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, _REAL):
        raise TypeError(f"{name} must be a number, got {described(value)}: {advice}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must be a number that a float can hold, got {described(value)}: {advice}") from None


def finite(name: str, value: Any) -> float:
    """``value`` as a finite float."""
    x = number(name, value)
    if not math.isfinite(x):
        raise ValueError(f"{name} must be finite, got {x}: write a finite number")
    return x


def integer(name: str, value: Any, least: int, advice: str) -> int:
    """``value`` as an int of at least ``least``: a Python or NumPy integer."""
    if isinstance(value, (bool, Tensor)) or not hasattr(value, "__index__") or isinstance(value, type):
        raise TypeError(f"{name} must be an int, got {described(value)}: {advice}")
    x = operator.index(value)
    if x < least:
        raise ValueError(f"{name} must be at least {least}, got {x}: {advice}")
    return x
