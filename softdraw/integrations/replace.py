"""Our draws under a whole model, in place of ``F.gumbel_softmax``."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType, ModuleType
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from softdraw.checks import given
from softdraw.functional import gumbel_softmax

NAME = "gumbel_softmax"


@contextmanager
def replace_gumbel_softmax(model: nn.Module | None = None) -> Iterator[None]:
    r"""Inside of the block, ``F.gumbel_softmax`` is :func:`softdraw.gumbel_softmax`.

    .. math:: y = \mathrm{softmax}((\theta + G) / \tau)

    with :math:`G` from our noise: finite in every dtype, and hard draws that are exact one-hots. Modules that wrote
    ``from torch.nn.functional import gumbel_softmax``, under whatever name, get it too, and those that are imported
    inside of the block. What holds the function elsewhere, as a default argument or in an object, keeps torch's. The
    function returns at the end of the block, also after an exception; blocks nest, and it works as a decorator.

    It holds **in all threads of the process**, those of the backward pass too, until the last open block ends. With
    activation checkpointing, call ``backward`` inside of the block: the forward pass runs again there.

    Args:
        model: also replaces functions named ``gumbel_softmax`` in the files that define the classes of this model's
            modules, for models that bring a copy of their own (GroupViT of transformers). None: torch's function alone.

    Returns:
        A context manager, whose value is None. The seed of each draw comes from torch's default generator, hence
        from ``torch.manual_seed``; the draws are not those of torch. ``eps``, which torch ignores as well, is left out.

    Gradient:
        As :func:`softdraw.gumbel_softmax`.

    Raises:
        TypeError: ``model`` is no module, or a copy takes other arguments than ``logits, tau, hard, dim``, with or
        without ``eps``.

    Example:
        >>> logits = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 0.5]], dtype=torch.bfloat16)
        >>> with softdraw.integrations.replace_gumbel_softmax():
        ...     _ = torch.manual_seed(0)
        ...     y = torch.nn.functional.gumbel_softmax(logits, tau=0.5, hard=True)
        >>> _ = torch.manual_seed(0)
        >>> torch.equal(y, softdraw.gumbel_softmax(logits, tau=0.5, hard=True))
        True

    Source:
        Jang, Gu and Poole (2017), "Categorical reparameterization with Gumbel-softmax", eqs. 1 and 2.
    """
    if model is not None and not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module or None, got {given(model)}: pass the model itself")
    with ExitStack() as stack:
        with _lock:  # what is there may be the stand-in of another block
            functions = [_original(f) for f in (F.gumbel_softmax, *([] if model is None else _copies(model)))]
            stand_ins = [(function, _stand_in(function)) for function in functions]
            for function, stand_in in stand_ins:
                _begin(function, stand_in)
                stack.callback(_end, function)
        yield


_lock = threading.RLock()
_open: dict[Callable, tuple[Callable, int]] = {}  # the stand-in of a function, and how many blocks are open on it


def _begin(function: Callable, stand_in: Callable) -> None:
    current, times = _open.get(function, (stand_in, 0))
    _open[function] = (current, times + 1)
    if not times:
        _swap(function, current)


def _end(function: Callable) -> None:
    with _lock:
        stand_in, times = _open[function]
        if times > 1:
            _open[function] = (stand_in, times - 1)
        else:
            del _open[function]
            _swap(stand_in, function)


def _swap(old: Callable, new: Callable) -> None:
    """Every module that has ``old`` gets ``new``, under the same name."""
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType):
            for name in [name for name, value in list(vars(module).items()) if value is old]:
                setattr(module, name, new)


def _original(function: Callable) -> Callable:
    return next((original for original, (stand_in, _) in _open.items() if stand_in is function), function)


def _copies(model: nn.Module) -> list[Callable]:
    """The functions ``gumbel_softmax`` in the files of the model's classes that are not torch's or ours."""
    names = dict.fromkeys(cls.__module__ for module in model.modules() for cls in type(module).__mro__)
    files = [sys.modules[name] for name in names if name in sys.modules and name.split(".")[0] != "softdraw"]
    found = dict.fromkeys(vars(file)[NAME] for file in files if isinstance(vars(file).get(NAME), FunctionType))
    return [function for function in found if function not in (F.gumbel_softmax, gumbel_softmax)]


def _stand_in(function: Any) -> Callable:
    """A function with the arguments and defaults of ``function`` that draws with our noise."""
    taken = list(inspect.signature(function).parameters)
    for ours in (_as_torch, _without_eps):
        if taken == list(inspect.signature(ours).parameters):
            return FunctionType(ours.__code__, ours.__globals__, NAME, function.__defaults__)
    raise TypeError(
        f"model must bring copies of gumbel_softmax with the arguments logits, tau, hard, dim, got "
        f"{function.__module__}.{NAME}({', '.join(taken)}): leave model out, and change that call yourself"
    )


def _as_torch(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    return gumbel_softmax(logits, tau, hard, dim=dim)


def _without_eps(logits: Tensor, tau: float = 1, hard: bool = False, dim: int = -1) -> Tensor:
    return gumbel_softmax(logits, tau, hard, dim=dim)
