"""Classes of libraries that may be missing."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any


def base(library: str, module: str, name: str) -> Any:
    """The class to derive from; where the library is missing, one whose constructor says what to install.

    So a module of ours can be imported, and its names read, without the library.
    """
    if find_spec(library) is not None:
        return getattr(import_module(module), name)

    class Missing:
        def __init__(self) -> None:
            raise ImportError(
                f"softdraw.integrations.{library} needs {library}, which is not installed: run pip install {library}"
            )

    return Missing
