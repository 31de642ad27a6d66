"""The OpenMP runtime that torch has loaded, on whose threads the CPU kernels may run (csrc/openmp.h says when)."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import torch

from softdraw.errors import InputError

VARIABLE = "SOFTDRAW_OPENMP"  # 0: draws use threads of their own alone


def team() -> ctypes.c_void_p | None:
    """The runtime's function that runs work on its threads (GOMP_parallel); None where draws do without."""
    return None if why_not() else _gomp_parallel()


def why_not() -> str:
    """Why draws use threads of their own alone; empty if they may use those of torch's runtime."""
    wanted = os.environ.get(VARIABLE) or "1"
    if wanted not in ("0", "1"):
        raise InputError(
            f"{VARIABLE} must be 0 (draws use threads of their own alone) or 1 (the default), got {wanted!r}"
        )
    if wanted == "0":
        return f"{VARIABLE}=0"
    if sys.platform != "linux":
        return f"those of torch are used on Linux only, and this is {sys.platform}"
    if _forked():
        return "this process is a fork, whose parent may have kept torch's"
    return "" if _gomp_parallel() else "torch's OpenMP runtime has no GOMP_parallel"


def _gomp_parallel() -> ctypes.c_void_p | None:
    # Looked up as torch's own calls are: a runtime that the whole process sees (a preloaded one) comes first.
    for place in (None, str(Path(torch.__file__).with_name("lib") / "libtorch_cpu.so")):
        try:
            return ctypes.cast(ctypes.CDLL(place).GOMP_parallel, ctypes.c_void_p)
        except (OSError, AttributeError):
            continue
    return None


def _forked() -> bool:
    """Whether this process was forked and has not started a program of its own since. True where that is unknown."""
    try:
        status = Path("/proc/self/stat").read_bytes()  # the name in it may be any bytes
    except OSError:
        return True
    flags = int(status.rpartition(b")")[2].split()[6])  # field 9 of proc(5); the name in brackets is the second
    return bool(flags & 0x40)  # PF_FORKNOEXEC of Linux's sched.h
