"""The progress bar of ``diagnose``; imports rich."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn


@contextmanager
def bar() -> Iterator[Callable[[float], None]]:
    """Gives a function of the share done; the bar is on standard error and goes when it is done."""
    columns = (TextColumn("measuring"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task("measuring", total=1.0)
        yield lambda share: shown.update(task, completed=share)
