"""A hyper-parameter inside modules: which objects hold it, whether it can take a value, and the write itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from softdraw.checks import scalar


def owners(target: object, attr: str) -> list[Any]:
    """The objects in ``target`` that hold the attribute; one that only shows what another holds is left out."""
    candidates = list(target.modules()) if isinstance(target, nn.Module) else [target]
    found = [x for x in candidates if _holds(x, attr)]
    holders = [x for x in found if not _read_only(x, attr)]
    if found and not holders:
        raise TypeError(f"attr {attr!r} of {type(found[0]).__name__} is a read-only property: name what it reads from")
    if not holders:
        raise ValueError(f"target has no module with an attribute {attr!r}: name the one to schedule with attr=...")
    return holders


def check_write(owner: Any, attr: str, value: float) -> None:
    """The attribute can take ``value`` as it is, or an error says why not."""
    held = getattr(owner, attr)
    if type(held) is float:
        return
    where = f"attr {attr!r} of {type(owner).__name__}"
    if isinstance(held, Tensor) and (isinstance(held, nn.Parameter) or held.requires_grad):
        raise TypeError(f"{where} is a parameter of the target: it is learned, and a schedule would overwrite it")
    if _in_place(owner, attr, held):
        _check_fits(held, value, where)
    elif held is None and isinstance(owner, nn.Module) and attr in owner._buffers:
        raise TypeError(f"{where} is a buffer that is None: register it as torch.tensor(1.0)")
    elif held is not None and not isinstance(held, Tensor):
        scalar(where, held, "a schedule writes numbers; name a number with attr=...")


def write(owner: Any, attr: str, value: float) -> None:
    """Write ``value``: into a tensor in place, so that compiled graphs and state_dicts see it; else as a new number."""
    held = getattr(owner, attr)
    if _in_place(owner, attr, held):
        with torch.no_grad():
            held.fill_(value)
        return
    try:
        setattr(owner, attr, value)
    except AttributeError as error:  # frozen dataclasses, slots, properties that refuse
        raise TypeError(f"attr {attr!r} of {type(owner).__name__} cannot be written: {error}") from error


def _holds(x: object, attr: str) -> bool:
    """Whether ``x`` itself has the attribute: a module that only forwards its content's has no value to write."""
    if not isinstance(x, nn.Module):
        return hasattr(x, attr)
    return attr in {*vars(x), *x._buffers, *x._parameters} or hasattr(type(x), attr)


def _read_only(x: object, attr: str) -> bool:
    found = getattr(type(x), attr, None)
    return isinstance(found, property) and found.fset is None


def _in_place(owner: Any, attr: str, held: Any) -> bool:
    """A tensor is filled, unless a property computes it: a write into its result would be lost, its setter is used."""
    return isinstance(held, Tensor) and not isinstance(getattr(type(owner), attr, None), property)


def _check_fits(buffer: Tensor, value: float, where: str) -> None:
    if not buffer.is_floating_point():
        raise TypeError(f"{where} is a tensor of {buffer.dtype}, and a schedule writes floats: make it float32")
    if buffer.is_meta:
        raise ValueError(f"{where} is on the meta device, which holds no value: make the scheduler after to_empty()")
    kept = float(torch.tensor(value, dtype=torch.float64, device="cpu").to(buffer.dtype).double())
    # Rounding moves a value by half of eps at most; more is an overflow, an underflow or a saturated float8.
    if kept != value and not abs(kept - value) <= torch.finfo(buffer.dtype).eps * abs(value):
        raise ValueError(
            f"{where} is a tensor of {buffer.dtype}, where {value} becomes {kept}: take a wider dtype or another value"
        )
