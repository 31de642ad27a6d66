"""The compiled CPU kernels as a shared library: where it is, whether it is the one that this code was written for, and
how it is called.

The C interface is one function an operation: ``(const Call*, const int64_t* layout)`` for draws (csrc/call.h), and
``(const Pass*)`` for passes without noise (csrc/pass.h), which returns 0 if every row was done, and ``(const Subset*)``
for k of n items (csrc/subset.h), which returns 0 if there was memory, and ``(const TileCall*)`` for tiles of a layer's
logits (csrc/call.h). A call is packed into bytes: filling a ctypes structure would cost more than a small draw.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from softdraw.kernels import elf, openmp

# The first 32 bits of the SHA-256 of call.h, pass.h, bits.h and subset.h of csrc/, as CMakeLists.txt has it.
ABI = 0x80898771
CALL = struct.Struct("=9Q2d10q")  # the fields of csrc/call.h in order
PASS = struct.Struct("=11Q2d11q")  # those of csrc/pass.h
BITS = struct.Struct("=9Qd9q")  # those of csrc/bits.h
SUBSET = struct.Struct("=6Q6q")  # those of csrc/subset.h
TILE = struct.Struct("=8Qd6q")  # those of a TileCall in csrc/call.h
STORAGE = {"float32": 0, "float64": 1, "bfloat16": 2, "float16": 3}
RULES = ("straight_through", "zgr", "reinmax", "gapped", "gumbel_rao", "reinmax_rao")  # as csrc/call.h numbers them
CHECKS = {"Anything": 0, "OneHot": 1, "Distribution": 2}  # what the second operand of a pass must be
USAGE = {"Diversity": 0, "Balance": 1}  # a loss of how rows use their categories, as csrc/pass.h numbers them
REDUCTIONS = {"none": 0, "sum": 1, "mean": 2}  # as csrc/call.h numbers them
OPERATIONS = (  # as csrc/call.h has them
    *("soft", "hard", "index", "gumbel", "soft_backward", "hard_backward"),
    *("rule_backward", "bits", "soft_bits", "bits_backward", "tempered", "topk", "best"),
)
PASSES = (
    *("entropy", "entropy_backward", "index_nll", "index_nll_backward", "nll", "nll_backward", "kl", "kl_backward"),
    *("drawn_backward", "usage", "usage_backward"),
)
OVER_BITS = tuple(
    f"bits_{name}{way}" for name in ("nll", "entropy", "variance", "kl", "share") for way in ("", "_backward")
)
OF_SUBSETS = tuple(f"subset_{name}" for name in ("normalizer", "mean", "covariance", "sample"))
OF_TILES = ("tile_take", "tile_turn")
_VARIABLE = "SOFTDRAW_LIBRARY"  # the path of a library to use instead of the installed one, such as a sanitizer build


def library() -> ctypes.CDLL | None:
    """The library, loaded once, with its functions typed; None if there is none that this code can call."""
    return _load()[0]


@functools.cache
def function(name: str) -> Callable[..., Any]:
    """An operation of the library by its name."""
    return getattr(library(), f"softdraw_{name}")


def address(operand: Any) -> int:
    """The address of an operand; 0, which the library reads as "no such operand", if there is none. A tensor without
    elements may have the address 0, since the library reads nothing of it; any other without memory is an error."""
    address = 0 if operand is None else operand.data_ptr()
    if operand is not None and not address and operand.numel():
        raise TypeError(
            f"a {type(operand).__name__} of shape {tuple(operand.shape)} has no memory for the CPU kernels to read: "
            "pass a plain tensor, or wrap the logits in the same way"
        )
    return address


def why_missing() -> str:
    """Why ``library`` is None, and what to do; empty if there is a library."""
    return _load()[1]


def advice() -> str:
    """What to do about a library that cannot be used."""
    if os.environ.get(_VARIABLE):
        return f"Build the file that {_VARIABLE} names from this version of softdraw, or unset {_VARIABLE}"
    return (
        "Build them again from this version of softdraw: run pip install --force-reinstall --no-deps softdraw, "
        "or pip install -e . in a checkout"
    )


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    path = _path()
    if path is None:
        return None, (
            "its compiled kernels are not installed. Reinstall softdraw from a wheel for this system, or where a C++17 "
            "compiler (GCC or Clang) is found, and look at the output of pip install -v"
        )
    try:
        missing = elf.missing_bytes(path)
        if missing:
            return None, f"{path} was cut off: it lacks {missing:,} bytes. {advice()}"
        loaded = ctypes.CDLL(str(path))  # calls release the GIL
    except OSError as failure:  # not there, not a library, or one for another system or processor
        return None, f"its compiled kernels do not load ({failure}). {advice()}"
    wrong = _mismatch(loaded)
    if wrong:
        return None, f"{path} {wrong}. {advice()}"
    for name in (*OPERATIONS, *OF_TILES):
        # Without argtypes, which would be checked anew in every call: bytes and None are passed as pointers anyway.
        getattr(loaded, f"softdraw_{name}").restype = None
    for name in (*PASSES, *OVER_BITS, *OF_SUBSETS):
        getattr(loaded, f"softdraw_{name}").restype = ctypes.c_int64
    loaded.softdraw_use_isa.argtypes, loaded.softdraw_use_isa.restype = [ctypes.c_char_p], ctypes.c_char_p
    loaded.softdraw_use_openmp.argtypes, loaded.softdraw_use_openmp.restype = [ctypes.c_void_p], None
    loaded.softdraw_use_openmp(openmp.team())
    return loaded, ""


def _mismatch(loaded: ctypes.CDLL) -> str:
    """What is wrong with a library that loads; empty if it is the one that this code was written for."""
    every = (*OPERATIONS, *PASSES, *OVER_BITS, *OF_SUBSETS, *OF_TILES)
    names = [f"softdraw_{name}" for name in ("abi", "isa", "use_isa", "use_openmp", *every)]
    missing = [name for name in names if not hasattr(loaded, name)]
    if "softdraw_abi" in missing:
        return "has no ABI number (softdraw_abi): it was built before there was one, or is another library"
    loaded.softdraw_abi.restype, loaded.softdraw_isa.restype = ctypes.c_uint32, ctypes.c_char_p
    found = loaded.softdraw_abi()
    if found != ABI:
        built = "was built from another version of csrc/call.h, pass.h, bits.h or subset.h"
        return f"{built}: its ABI number is {found:#010x}, expected {ABI:#010x}"
    if missing:
        return f"lacks {', '.join(missing)}"
    if loaded.softdraw_isa() is None:
        return "was compiled for instruction sets that this processor does not have (x86-64-v2 is the smallest)"
    return ""


def isa() -> str:
    """The instruction set that the kernels run on."""
    loaded = library()
    return "" if loaded is None else loaded.softdraw_isa().decode()


def use_isa(name: str) -> None:
    """Run on another instruction set, such as "x86-64-v3", that this CPU has: for tests and comparisons."""
    loaded = library()
    if loaded is None or loaded.softdraw_use_isa(name.encode()) is None:
        raise ValueError(f"no kernels for {name!r} run on this machine: it runs on {isa() or 'plain torch'}")


def _path() -> Path | None:
    given = os.environ.get(_VARIABLE)
    if given:
        return Path(given)
    # An editable install leaves the package here and puts what is compiled into site-packages: both are on the path.
    places = sys.modules[__package__ or "softdraw.kernels"].__path__
    return next((file for place in places for file in sorted(Path(place).glob("libsoftdraw_cpu.*"))), None)
