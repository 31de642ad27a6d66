"""The compiled CPU kernels as a shared library: where it is, how it is called, and why it is missing if it is.

The C interface (csrc/call.h) is one function an operation, ``(const Call*, const int64_t* layout)``. A call is packed
into bytes: filling a ctypes structure would cost more than a small draw.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
import sys
import warnings
from pathlib import Path

import torch

CALL = struct.Struct("=7Qd7q")  # the fields of csrc/call.h in order
STORAGE = {"float32": 0, "float64": 1, "bfloat16": 2, "float16": 3}
_OPERATIONS = ("soft", "hard", "index", "gumbel", "soft_backward", "hard_backward")
_VARIABLE = "SOFTDRAW_LIBRARY"  # a path that takes the place of the installed library: a sanitizer build, say


@functools.cache
def library() -> ctypes.CDLL | None:
    """The library, loaded once, with its functions typed; None (and one warning) if it is not there or not for here."""
    path = _path()
    if path is None:
        warnings.warn(f"softdraw draws with plain torch on the CPU: {why_missing()}", RuntimeWarning, stacklevel=2)
        return None
    loaded = ctypes.CDLL(str(path))  # calls release the GIL
    for name in _OPERATIONS:
        function = getattr(loaded, f"softdraw_{name}")
        function.argtypes, function.restype = [ctypes.c_char_p, ctypes.c_char_p], None
    loaded.softdraw_isa.restype = loaded.softdraw_use_isa.restype = ctypes.c_char_p
    loaded.softdraw_use_isa.argtypes = [ctypes.c_char_p]
    loaded.softdraw_use_openmp.argtypes, loaded.softdraw_use_openmp.restype = [ctypes.c_void_p], None
    loaded.softdraw_use_openmp(_openmp())
    return loaded


def _openmp() -> ctypes.c_void_p | None:
    """How torch's OpenMP runtime is asked to run something on its threads (csrc/openmp.h says when); None where torch
    has none, or where this process is a fork whose parent may have kept them."""
    if sys.platform != "linux" or _forked():
        return None
    # As torch's own calls find it: what all of the process sees (a preloaded runtime, say) comes first.
    for place in (None, str(Path(torch.__file__).with_name("lib") / "libtorch_cpu.so")):
        try:
            return ctypes.cast(ctypes.CDLL(place).GOMP_parallel, ctypes.c_void_p)
        except (OSError, AttributeError):
            continue
    return None


def _forked() -> bool:
    """Whether this process was forked and runs no program of its own (the kernel's PF_FORKNOEXEC), or may have been."""
    try:
        status = Path("/proc/self/stat").read_bytes()  # the name in it may be any bytes
    except OSError:
        return True
    return bool(int(status.rpartition(b")")[2].split()[6]) & 0x40)


def isa() -> str:
    """The instruction set that the kernels run on."""
    loaded = library()
    return "" if loaded is None else loaded.softdraw_isa().decode()


def use_isa(name: str) -> None:
    """Run on another instruction set, such as "x86-64-v3", that this CPU has: for tests and comparisons."""
    loaded = library()
    if loaded is None or loaded.softdraw_use_isa(name.encode()) is None:
        raise ValueError(f"no kernels for {name!r} run on this machine: it runs on {isa() or 'plain torch'}")


def why_missing() -> str:
    """Why there is no library, and the way to it."""
    return (
        "its compiled kernels are not installed. Reinstall it where a C++17 compiler (GCC or Clang) is found, "
        "and look at the output of pip install -v"
    )


def _path() -> Path | None:
    given = os.environ.get(_VARIABLE)
    if given:
        return Path(given)
    # An editable install leaves the package here and puts what is compiled into site-packages: both are on the path.
    places = sys.modules[__package__ or "softdraw.kernels"].__path__
    return next((file for place in places for file in sorted(Path(place).glob("libsoftdraw_cpu.*"))), None)
