"""Overrides of public functions by torch.fx, tensor-like types and DTensors, and the error for torch.jit.script.

An argument with a ``__torch_function__`` of its own receives the whole call, as with torch's functions. A proxy of
torch.fx has one, so the function becomes one node of the traced graph.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from softdraw.tensors import is_dtensor, replicating

Function = TypeVar("Function", bound=Callable)

_ORDINARY = (Tensor, torch.nn.Parameter, int, float, bool, str, tuple, type(None))  # torch.compile of 2.6 needs a tuple


def overridable(function: Function) -> Function:
    """A function of tensors, open to tensor-like arguments and to DTensors."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = (*args, *kwargs.values())
        for x in given:  # all() takes half of the time of these checks
            if type(x) not in _ORDINARY:
                break
        else:
            return function(*args, **kwargs)
        if stands_in(*given):
            return handle_torch_function(call, given, *args, **kwargs)
        if any(map(is_dtensor, given)):
            return replicating(function, args, kwargs)
        return function(*args, **kwargs)

    return not_scripted(call)  # pyright: ignore[reportReturnType]


def stands_in(*given: Any) -> bool:
    """Whether an argument has a ``__torch_function__`` of its own. Modes do not count: they see torch's own calls."""
    kinds = {type(x) for x in given}.difference(_ORDINARY)
    return any(getattr(kind, "__torch_function__", None) is not None for kind in kinds) and has_torch_function(given)


def handed_over(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """The call as the argument that stands in makes it; keywords at their defaults are left out."""
    defaults: Any = function.__kwdefaults__
    return handle_torch_function(
        function,
        (*args, *kwargs.values()),
        *args,
        **{name: x for name, x in kwargs.items() if x is not defaults[name]},
    )


def not_scripted(function: Function) -> Function:
    """``function`` itself, for which torch.jit.script raises an error that says what to use instead."""
    vars(function)["__prepare_scriptable__"] = functools.partial(refuse_script, _public_name(function))
    return function


def _public_name(function: Callable) -> str:
    """A loss is public in softdraw.losses, every other function in softdraw."""
    package = "softdraw.losses" if function.__module__.startswith("softdraw.losses") else "softdraw"
    return f"{package}.{function.__name__}"


def refuse_script(name: str) -> None:
    """What a ``__prepare_scriptable__`` of this library does: torch.jit.script calls it before anything else."""
    raise NotImplementedError(
        f"{name} is not available in torch.jit.script: compile the model with torch.compile, "
        "or save it with torch.export or torch.jit.trace"
    )
