"""Which part of a traceback is the user's: what comes before the user's function is of no use to them."""

from __future__ import annotations

import importlib
import os
from types import TracebackType

import torch

_OURS = tuple(
    os.path.dirname(os.path.abspath(str(place))) + os.sep
    for place in (os.path.dirname(os.path.abspath(__file__)), torch.__file__, importlib.__file__)
)


def users_part(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame on that is neither of softdraw, nor of torch, nor of Python's import."""
    while trace is not None and _is_ours(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace


def _is_ours(file: str) -> bool:
    return file.startswith("<frozen importlib") or os.path.abspath(file).startswith(_OURS)
