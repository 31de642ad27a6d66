"""Pictures off screen: a figure on a canvas of its own, and its PNG."""

from __future__ import annotations

import io
from typing import Any

from softdraw.errors import InputError


def require() -> None:
    """Fail before the training, not after it, where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise InputError("the pictures need matplotlib: pip install 'softdraw[cli]'") from None


def subplots(width: float, height: float, **layout: Any) -> tuple[Any, Any]:
    """A figure on the Agg canvas by itself: no window, and no state of pyplot that a user's program might share."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(**layout)


def png(figure: Any) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def settled(values: list[list[float]]) -> tuple[float, float]:
    """Limits of an axis that leave out the first tenth of the epochs, where all fall from a height that hides the rest.

    Args:
        values: a list for each curve, a number for each epoch.
    """
    shown = [value for curve in values for value in curve[len(curve) // 10 :]]
    margin = 0.05 * (max(shown) - min(shown)) or 1.0
    return min(shown) - margin, max(shown) + margin
