"""The private names of torch that softdraw uses, each with a fallback for a torch that does not have it.

Each name is looked up once, here, and nowhere else in the package. A fallback uses only public names. It is slower, or
checks less where it says so; draws and gradients are the same.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling


def _private(name: str, otherwise: Any) -> Any:
    """``torch.<name>``, or ``otherwise`` where this torch has no such name."""
    try:
        return operator.attrgetter(name)(torch)
    except AttributeError:
        return otherwise


def _refuses_requires_grad() -> bool:
    """torch refuses ``requires_grad_`` inside of every transform of torch.func; this one changes nothing."""
    try:
        torch.empty(()).requires_grad_(False)
    except RuntimeError:
        return True
    return False


def _makes_duals() -> bool:
    """A dual tensor can be made in forward-mode differentiation only."""
    try:
        forward_ad.make_dual(torch.zeros(()), torch.zeros(()))
    except RuntimeError:
        return False
    return True


def _has_open_level() -> bool:
    return forward_ad._current_level >= 0


def _can_reach_storage(x: Tensor) -> bool:
    try:
        x.untyped_storage()
    except RuntimeError:
        return False
    return True


def _records_a_trace() -> bool | None:
    return torch.jit.is_tracing() or None  # pyright: ignore[reportPrivateImportUsage]  (it is documented)


def _assert_now(condition: Tensor, message: str) -> None:
    """Waits for the device. A compiled graph cannot: there the condition is not checked."""
    if not torch.compiler.is_compiling() and not condition:
        raise RuntimeError(message)


def _multiply_matrices(cycles: int) -> None:
    """Keeps a GPU at work for some 2^37 operations: milliseconds, whatever ``cycles`` says."""
    x = torch.ones(4096, 4096, device="cuda")
    torch.matmul(x, x)


def quick_apply(function: Any, backward: Callable) -> Callable[..., Any]:
    """``function.apply`` of an ``autograd.Function`` without what only torch.func needs.

    The apply of its base class records the call, and ``backward`` itself is the apply of the nodes that it records.
    That saves a tenth of a small draw with its gradient. Without either name, ``function.apply`` does the same.
    """
    node = getattr(function, "_backward_cls", None)
    if _FUNCTION_BASE is None or node is None:
        return function.apply
    node.apply = backward
    inherited: Any = super(torch.autograd.Function, function)
    return inherited.apply


_FUNCTION_BASE = _private("_C._FunctionBase", None)

# Whether a transform of torch.func (vmap, grad, jvp, ...) is active.
transformed: Callable[[], bool] = _private("_C._are_functorch_transforms_active", _refuses_requires_grad)

# How many dispatch modes (fake tensors, counters, tracers) see torch's operations. Where torch does not say, one is
# assumed: every draw is then an operator of the dispatcher, which serves eager code as well.
dispatch_modes: Callable[[], int] = _private("_C._len_torch_dispatch_stack", lambda: 1)

# How many function modes (a default device, a log of calls) see torch's functions in Python. Where torch does not say,
# they see none of what a kernel does in one step.
function_modes: Callable[[], int] = _private("_C._len_torch_function_stack", lambda: 0)

# Something other than None while torch.jit.trace records.
tracing: Callable[[], Any] = _private("_C._get_tracing_state", _records_a_trace)

# Whether forward-mode differentiation is on.
forward_mode: Callable[[], bool] = _has_open_level if hasattr(forward_ad, "_current_level") else _makes_duals

# Whether a tensor has memory of its own; the wrappers of torch.func have none.
has_storage: Callable[[Tensor], bool] = _private("_C._has_storage", _can_reach_storage)

# An assertion that does not wait for the device, which raises the error later.
assert_later: Callable[[Tensor, str], None] = _private("_assert_async", _assert_now)

# Keeps the GPU at work for a number of clock cycles (benchmarks queue calls behind it).
gpu_sleep: Callable[[int], None] = _private("cuda._sleep", _multiply_matrices)


def constant_of_graphs(function: Any) -> Any:
    """``function``, which torch.compile calls once while it traces. ``torch.compiler.assume_constant_result`` sets this
    mark too, but imports the whole compiler first. A torch that does not read it refuses to trace the function."""
    function._dynamo_marked_constant = True
    return function


PLAIN = (Tensor, torch.nn.Parameter)


def _plain_by_level(x: object) -> bool:
    return (
        type(x) in PLAIN
        and not is_dynamo_compiling()
        and tracing() is None
        and not dispatch_modes()
        and not transformed()
        and forward_ad._current_level < 0
    )


def _plain_by_dual(x: object) -> bool:
    return (
        type(x) in PLAIN
        and not is_dynamo_compiling()
        and tracing() is None
        and not dispatch_modes()
        and not transformed()
        and not forward_mode()
    )


# Whether autograd alone sees what is done with a tensor, so that its values may be read: it is an ordinary tensor, and
# no compiler, tracer, dispatch mode, torch.func or forward-mode differentiation is at work. Every draw asks this, so it
# reads the level itself where there is one. Of the compilers it looks for Dynamo only, which is quicker than
# is_compiling, because an export without Dynamo has a dispatch mode.
is_plain: Callable[[object], bool] = _plain_by_level if forward_mode is _has_open_level else _plain_by_dual
