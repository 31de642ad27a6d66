"""How much memory a call takes: at its peak beyond its result, and for its backward pass.

The peak is that of the process, since torch's allocator cannot see what the kernels take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from softdraw.bench.line import Gradient, Values

_PROCESS = Path("/proc/self")
_DEPTH = 3  # how far into the attributes of a node of the graph tensors are looked for


def extra_bytes(call: Callable[[], Values]) -> int | None:
    """Peak resident bytes during ``call`` over those before it and its result's own; None where Linux does not tell."""
    try:
        (_PROCESS / "clear_refs").write_text("5")  # sets the peak back to the present size
    except OSError:
        return None
    before = _peak()
    result = call()
    return max(0, _peak() - before - size(result))


def kept_bytes(call: Callable[[], Values]) -> int | None:
    """Bytes that the forward pass of ``call`` keeps for the backward pass, beside its inputs and its result; None where
    there is no backward pass.

    Storages are counted, each once and whole, since a view keeps all of its storage. They are those of the tensors that
    autograd saves and of those that a Python function keeps as attributes of its context.
    """
    if not isinstance(call, Gradient):
        return None
    saved: list[Tensor] = []
    with saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        y = call.forward()
    saved.extend(_attributes(y.grad_fn))
    kept = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in saved}
    for x in (*call.inputs, y):
        kept.pop(x.untyped_storage().data_ptr(), None)
    return sum(kept.values())


def size(result: Values) -> int:
    """Bytes of the elements of a result."""
    return sum(x.numel() * x.element_size() for x in (result if isinstance(result, tuple) else (result,)))


def _attributes(root: Any) -> Iterator[Tensor]:
    """Tensors in the attributes of the nodes from ``root`` on."""
    nodes, seen = [root], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes.extend(before for before, _ in node.next_functions)
        yield from _tensors(getattr(node, "__dict__", {}), _DEPTH)


def _tensors(x: Any, depth: int) -> Iterator[Tensor]:
    if isinstance(x, Tensor):
        yield x
    elif depth and isinstance(x, (tuple, list)):
        for item in x:
            yield from _tensors(item, depth - 1)
    elif depth and not isinstance(x, type):
        for item in (x if isinstance(x, dict) else getattr(x, "__dict__", {})).values():
            yield from _tensors(item, depth - 1)


def _peak() -> int:
    status = (_PROCESS / "status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
