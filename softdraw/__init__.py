"""softdraw: draws discrete samples and keeps their gradient.

``import softdraw`` loads this file alone, so that the command line starts without torch. The public names are listed in
``softdraw/public.py``. The first use of one, or ``from softdraw import NAME``, loads torch and all of them.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softdraw.public import *  # noqa: F403

__version__ = "0.1.0"


def _load() -> list[str]:
    """Put the public names into this module; returns them."""
    public = vars(import_module("softdraw.public"))
    names = sorted(name for name in public if not name.startswith("_"))
    globals().update((name, public[name]) for name in names)
    return names


if not TYPE_CHECKING:  # a type checker would take it for leave to use any name

    def __getattr__(name: str) -> Any:
        if name == "__all__":
            return _load()
        if not name.startswith("_"):
            # A submodule first, and without the rest: the files of the package import each other as `from softdraw
            # import kernels`, which asks here while the public names are still being loaded.
            if find_spec(f"softdraw.{name}"):
                return import_module(f"softdraw.{name}")
            if name in _load():
                return globals()[name]
        raise AttributeError(f"module 'softdraw' has no attribute {name!r}", name=name, obj=sys.modules[__name__])

    def __dir__() -> list[str]:
        return sorted({*globals(), *_load()})
