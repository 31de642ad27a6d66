"""One check for each kind of argument.

Each error begins with the argument's name and says what is allowed, what the call got and what to write instead. A
call checks its arguments before it computes, so that no user sees a raw message of Python or torch from further down.
Numpy's numbers count as numbers; a bool does not.
"""

from __future__ import annotations

import math
import numbers
import operator
import reprlib

import torch
from torch import Tensor

DENSE = torch.strided
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
ORDINARY = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# float8_e8m0fnu (torch 2.7) has no sign; float4_e2m1fn_x2 (torch 2.8) packs two numbers into one element.
_NO_NUMBERS = {getattr(torch, name, None) for name in ("float8_e8m0fnu", "float4_e2m1fn_x2")} - {None}
_LARGE = 2**1023
_NUMBERS = (int, float, torch.SymInt, torch.SymFloat)  # a traced size is an int


def given(x: object) -> str:
    """How an error describes a value: a class by name, a tensor by dtype and shape, the rest by type and value."""
    if isinstance(x, type):
        return f"the class {x.__name__}"
    if isinstance(x, Tensor) and x.dim() > 0:
        return f"a tensor of {x.dtype}" + ("" if x.is_nested else f" and shape {tuple(x.shape)}")
    return f"{type(x).__name__} {' '.join(reprlib.repr(x).split())}"


def _word(name: str) -> str:
    """The argument alone, as code has it, of a name that says more ("lam of IMLE")."""
    return name.split()[0]


def integer(name: str, value: object, meaning: str) -> int:
    """Returns an int or a numpy integer as an int; raises a TypeError that says what ``name`` means for the rest."""
    if type(value) is int or isinstance(value, torch.SymInt):
        return value  # pyright: ignore[reportReturnType] (a tracer uses a SymInt as an int)
    if not isinstance(value, (bool, Tensor)):
        try:
            return operator.index(value)  # pyright: ignore[reportArgumentType]
        except TypeError:
            pass
    raise TypeError(f"{name} must be an int, {meaning}, got {given(value)}{_item(name, value)}")


def number(name: str, value: object, allowed: str = "a number") -> float:
    """Returns a Python or numpy number as a number; raises a TypeError that says what is ``allowed`` for the rest."""
    if isinstance(value, _NUMBERS) and not isinstance(value, bool):
        if type(value) is int and not -_LARGE < value < _LARGE:
            raise ValueError(f"{name} must be a number that a float can hold, got {given(value)}")
        return value  # pyright: ignore[reportReturnType] (a tracer uses a SymFloat as a float)
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    raise TypeError(f"{name} must be {allowed}, got {given(value)}{_item(name, value)}")


def _item(name: str, value: object) -> str:
    """What to write in place of a tensor of one number."""
    return f": write {_word(name)}.item()" if isinstance(value, Tensor) and value.numel() == 1 else ""


def scalar(name: str, value: object, advice: str = "write a float") -> float:
    """Returns a number, or a tensor without dimensions and without a gradient, as a float."""
    if type(value) is float or (type(value) is int and -_LARGE < value < _LARGE):
        return float(value)
    if isinstance(value, Tensor) and value.dim() == 0 and not value.requires_grad and not value.is_meta:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, *_NUMBERS)):
        raise TypeError(f"{name} must be a number, got {given(value)}: {advice}")
    return float(number(name, value))


def finite(name: str, value: object) -> float:
    """``scalar``, and not infinite or NaN."""
    x = scalar(name, value)
    if not math.isfinite(x):
        raise ValueError(f"{name} must be finite, got {x}: write a finite number")
    return x


def count(name: str, value: object, least: int, meaning: str) -> int:
    """``integer`` of at least ``least``."""
    x = integer(name, value, meaning)
    if x < least:
        raise ValueError(f"{name} must be at least {least}, got {x}: {meaning}")
    return x


def check_bool(name: str, value: object, for_int: str = "") -> None:
    """Checks that ``value`` is True or False. A truthy value is refused: it may be another argument in this place,
    which ``for_int`` names."""
    if not isinstance(value, (bool, torch.SymBool)):
        way = for_int if for_int and type(value) is int else f"write bool({_word(name)})"
        raise TypeError(f"{name} must be a bool, True or False, got {given(value)}: {way}")


def check_tensor(name: str, x: Tensor, kind: str = "tensor") -> None:
    """Checks that ``x`` is a dense tensor: not sparse, nested or quantised."""
    if not isinstance(x, Tensor):
        way = "write torch.tensor(...) first"
        if isinstance(x, torch.fx.Proxy):
            way = "torch.fx traces no object that holds one; wrap the function that makes it in torch.fx.wrap"
        raise TypeError(f"{name} must be a {kind}, got {given(x)}: {way}")
    if x.is_nested or x.layout is not DENSE or x.is_quantized:
        way = "dequantize()" if x.is_quantized else "to_padded_tensor(0.0)" if x.is_nested else "to_dense()"
        layout = "quantised" if x.is_quantized else "nested" if x.is_nested else str(x.layout)
        raise TypeError(f"{name} must be a dense {kind}, got a {layout} one of {x.dtype}: write {_word(name)}.{way}")


def check_real(name: str, x: Tensor, kind: str = "tensor") -> None:
    """Checks that ``x`` is a dense tensor of real numbers: bool, integer or floating point."""
    check_tensor(name, x, kind)
    if x.is_complex():
        raise TypeError(f"{name} must be real, got a tensor of {x.dtype}: take its real part or its magnitude")
    if x.dtype in _NO_NUMBERS:
        raise TypeError(
            f"{name} must have a dtype with a sign and one number each, got {x.dtype}: write {_word(name)}.float()"
        )


def check_floating(name: str, x: Tensor) -> None:
    """Checks that ``x`` is a dense floating-point tensor."""
    if isinstance(x, Tensor) and x.dtype in ORDINARY and x.layout is DENSE and not x.is_nested:
        return  # the common case first: a small draw takes microseconds
    check_real(name, x, "floating-point tensor")
    if not x.is_floating_point():
        raise TypeError(f"{name} must be floating point, got a tensor of {x.dtype}: write {_word(name)}.float()")


def check_dtype(name: str, dtype: object) -> None:
    """Checks that ``dtype`` can hold noise."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point or dtype in _NO_NUMBERS:
        got = dtype if isinstance(dtype, torch.dtype) else given(dtype)
        raise TypeError(f"{name} must be a floating-point dtype with a sign, such as torch.float32, got {got}")


def prepare_device(device: object, default: torch.device | str) -> torch.device:
    """Returns the device, after a check that this torch can use it."""
    if device is None:
        return torch.device(default)
    try:
        found = torch.device(device)  # pyright: ignore[reportArgumentType, reportCallIssue]
        if found.type != "cpu":
            torch.empty(0, device=found)
    except (AssertionError, RuntimeError, TypeError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"device must be one that this torch has, such as 'cpu', got {given(device)}: {reason}"
        ) from None
    return found


def check_device(name: str, x: Tensor, device: torch.device, what: str = "logits") -> None:
    """Checks that ``x`` is on the same device as the logits."""
    if x.device != device:
        raise ValueError(f"{name} is on {x.device} and {what} on {device}: write {_word(name)}.to({what}.device)")


def check_mask(mask: Tensor, device: torch.device, true: str, what: str = "logits") -> None:
    """Checks that ``mask`` is a bool tensor on the device of the logits; ``true`` says what True means."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(f"mask must be a bool tensor (True = {true}), got {given(mask)}: write mask.bool() or mask > 0")
    check_tensor("mask", mask)
    check_device("mask", mask, device, what)


def check_room(ids: Tensor, each: int) -> None:
    """Checks that the ids of samples, which can be read, leave room in 64 bits for the ``each`` rows of a sample.
    Otherwise two samples would share rows."""
    if each < 2 or not ids.numel():
        return
    low, high = (int(x) for x in ids.aminmax())
    if not -(2**63) <= low * each <= high * each + each - 1 < 2**63:
        raise ValueError(
            f"rows must be ids of samples whose {each} rows each have ids below 2**63, got values from {low} to "
            f"{high}: write rows % {2**63 // each}"
        )


def check_items(k: int | Tensor, logits: Tensor) -> tuple[int | Tensor, int]:
    """``k`` is from 0 to the number of items, an int or an integer tensor that broadcasts to the batch; returns it, an
    int where all rows have the same, and the largest."""
    n, batch = logits.shape[-1], logits.shape[:-1]
    if isinstance(k, Tensor):
        check_tensor("k", k)
        if k.dtype == torch.bool or k.is_floating_point() or k.is_complex():
            raise TypeError(f"k must be an int or a tensor of integers, got {given(k)}: write k.long()")
        check_device("k", k, logits.device)
        if k.dim() > len(batch) or any(
            m not in (1, n) for m, n in zip(reversed(k.shape), reversed(batch), strict=False)
        ):
            raise ValueError(
                f"k of shape {tuple(k.shape)} does not broadcast to the batch {tuple(batch)} of the logits: "
                "it is one number for every row"
            )
        if torch.compiler.is_compiling() or k.is_meta:
            raise ValueError(
                f"k must be an int where its values cannot be read (torch.compile, a meta tensor), got {given(k)}: "
                "one graph for each k, or a law made outside of the compiled function"
            )
        least, most = (int(k.min()), int(k.max())) if k.numel() else (0, 0)
        k = most if least == most else k.long()
    else:
        k = least = most = integer("k", k, "how many items are chosen, or a tensor of integers, one for every row")
    if not 0 <= least <= most <= n:
        raise ValueError(f"k must be from 0 to the {n} items of the logits, got {least if least < 0 else most}")
    return k, most
