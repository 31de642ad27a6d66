"""A table of published figures beside ours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows of text under a header, with a line above and below it."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str

    def __str__(self) -> str:
        widths = [max(len(row[i]) for row in (self.header, *self.rows)) for i in range(len(self.header))]
        lines = [
            "  ".join(
                cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in (self.header, *self.rows)
        ]
        return "\n".join([self.title, "", lines[0], "-" * len(lines[0]), *lines[1:], "", self.note])


def figure(x: float) -> str:
    """Four significant digits; what is only rounding error is 0."""
    return "0" if abs(x) < 1e-10 else f"{x:.4g}"
