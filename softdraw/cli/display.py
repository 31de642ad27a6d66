"""What ``softdraw train`` shows: a live bar on a terminal, a line now and then elsewhere, and a table at the end."""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from softdraw.recipes.loop import Trainer

_LINES = 10  # printed over a run where there is no terminal


def console(quiet: bool = False) -> Console:
    """A console that prints names as they are and breaks no line."""
    return Console(quiet=quiet, highlight=False, soft_wrap=True, markup=False, emoji=False)


def progress(console: Console) -> Progress:
    """A live bar of epochs, on a terminal only."""
    return Progress(
        TextColumn("epoch {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(bar_width=None),
        TextColumn("{task.description}"),
        TimeRemainingColumn(compact=True),
        console=console,
        disable=console.quiet or not console.is_terminal,
        expand=True,
    )


class Display:
    """The face of one run; ``quiet`` for the ranks that do not print."""

    def __init__(self, out: Path, quiet: bool) -> None:
        self.out = out
        self.console = console(quiet)
        self.bar = progress(self.console)

    def __enter__(self) -> Display:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()
        if kind is KeyboardInterrupt:
            self.console.print(f"stopped; softdraw train --out {self.out} --resume goes on after the last full epoch")

    def start(self, trainer: Trainer) -> None:
        """Say what is about to be trained, and show the bar."""
        s, images = trainer.settings, trainer.images
        done = len(trainer.history)
        self.console.print(
            f"{s.data}: {len(images.train):,} images of {images.shape[0]}x{images.shape[1]} to train on, "
            f"{len(images.valid):,} held out; {s.groups}x{s.categories} codes, "
            f"{s.rule}, {s.device}" + (f"; continued after epoch {done}" if done else "")
        )
        self.task = self.bar.add_task(summary(trainer) if done else "", total=s.epochs, completed=done)
        self.bar.start()

    def advance(self, trainer: Trainer) -> None:
        """Show the epoch that was just finished."""
        self.bar.update(self.task, description=summary(trainer), completed=len(trainer.history))
        done, total = len(trainer.history), trainer.settings.epochs
        if self.bar.disable and (done * _LINES // total > (done - 1) * _LINES // total):
            self.console.print(f"epoch {done}/{total}  {summary(trainer)}")

    def table(self, trainer: Trainer) -> None:
        """The last epoch in full, what the codes carry, and what it cost."""
        last = trainer.history[-1]
        table = Table(title=f"After {last['epoch']} epochs, exact draws (nats per image)", title_justify="left")
        table.add_column("")
        for name in ("training images", "held-out images"):
            table.add_column(name, justify="right")
        for name, key, digits in _ROWS:
            table.add_row(name, *(f"{last[f'{part}_{key}']:.{digits}f}" for part in ("train", "valid")))
        gaps = (last[f"{part}_shuffled_nelbo"] - last[f"{part}_nelbo"] for part in ("train", "valid"))
        table.add_row("  difference", *(f"{gap:.2f}" for gap in gaps))
        table.add_row(
            "negative ELBO, one image for all",
            *(f"{trainer.without_code(x):.2f}" for x in (trainer.train, trainer.valid)),
        )
        table.add_row(
            "information in a code, bits", *(f"{last[f'{part}_kl'] / math.log(2):.2f}" for part in ("train", "valid"))
        )
        self.console.print(table)
        training, total = trainer.seconds["training"], trainer.seconds["total"]
        rate = len(trainer.train) * len(trainer.history) / training
        self.console.print(f"{total:.1f} seconds, of which {training:.1f} training: {rate:,.0f} samples per second")
        self.console.print(f"Pictures, metrics.jsonl and checkpoint.pt are in {self.out}")


_ROWS = (
    ("negative ELBO", "nelbo", 2),
    ("  reconstruction", "reconstruction", 2),
    ("  KL to the uniform prior", "kl", 2),
    ("perplexity of the codes", "perplexity", 2),
    ("active codes", "active_codes", 0),
    ("negative ELBO, codes shuffled", "shuffled_nelbo", 2),
)


def summary(trainer: Trainer) -> str:
    """The last epoch in a few words."""
    last = trainer.history[-1]
    tau = f"tau {last['tau']:.3g}  " if trainer.settings.has_tau else ""
    return f"held-out nELBO {last['valid_nelbo']:.2f} nats  {tau}perplexity {last['valid_perplexity']:.2f}"
