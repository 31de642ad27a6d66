"""Texts while they are written: live on a terminal, a few stages of the first elsewhere, and whole at the end."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from typing_extensions import Self

_WIDTH = 64  # characters of a line while the text is written
_STAGES = 4  # of the first text that are printed where there is no terminal


class Canvas:
    """Entered for as long as texts of ``length`` characters are written; ``blank`` stands for one that is not yet."""

    def __init__(self, console: Console, length: int) -> None:
        self.console, self.length = console, length
        self.blank = "\N{LIGHT SHADE}" if console.encoding.lower().startswith("utf") else "~"
        self.texts: list[str] = []
        self.stage = -1
        self.live = Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.live.stop()
        if kind is None:
            for number, text in enumerate(self.texts):
                self.console.print(f"\ntext {number}")
                self.console.print("\n".join(f"  {line}".rstrip() for line in text.splitlines()))
        elif kind is KeyboardInterrupt:
            self.console.print("stopped while writing")

    def update(self, texts: list[str], written: int) -> None:
        """Show the texts, of each of which so many characters are written."""
        self.texts = texts
        if self.console.is_terminal:
            grids = ("\n".join(self._lines(text)) for text in texts)
            self.live.update(Text("\n\n".join(grids)), refresh=True)
            return
        stage = written * _STAGES // self.length
        if self.stage < stage < _STAGES:
            self.stage = stage
            self.console.print(f"text 0, {written} of {self.length} characters written")
            self.console.print("\n".join(f"  {line}" for line in self._lines(texts[0])))

    def _lines(self, text: str) -> list[str]:
        """The text in lines of one length, every character in its place: line ends are blanks."""
        flat = "".join(character if character.isprintable() else " " for character in text)
        return [flat[i : i + _WIDTH] for i in range(0, len(flat), _WIDTH)]
