"""What ``softdraw train`` and ``compare`` show: a live bar on a terminal, lines elsewhere, a table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from softdraw.errors import counted

if TYPE_CHECKING:
    from typing_extensions import Self

    from softdraw.recipes.runs.compare import Run
    from softdraw.recipes.runs.comparison import Compared
    from softdraw.recipes.runs.recipe import Recipe, Report
    from softdraw.recipes.runs.run import Start

_LINES = 10  # printed over a run where there is no terminal


def console(quiet: bool = False) -> Console:
    """A console that prints names as they are and breaks no line."""
    return Console(quiet=quiet, highlight=False, soft_wrap=True, markup=False, emoji=False)


@contextmanager
def loading(console: Console, what: str) -> Iterator[Callable[[], None]]:
    """On a terminal, show that ``what`` is being loaded, until the block ends or calls what it is given."""
    status = console.status(f"loading {what} ...")
    if console.is_terminal and not console.quiet:
        status.start()
    try:
        yield status.stop
    finally:
        status.stop()


class _Epochs(ProgressColumn):
    """How many epochs are done, of how many; a part of one does not count."""

    def render(self, task: Task) -> Text:
        return Text(f"epoch {int(task.completed)}/{int(task.total or 0)}")


class _Screen:
    """A bar on a terminal; entered for as long as it may be shown."""

    stopped = ""  # what to say when the user stops the program

    def __init__(self, report: Report, console: Console, loaded: Callable[[], None]) -> None:
        self.report, self.console, self.loaded = report, console, loaded
        self.bar = Progress(
            _Epochs(Column(no_wrap=True)),
            BarColumn(bar_width=None),
            TextColumn("{task.description}"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=console.quiet or not console.is_terminal,
            expand=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()
        if kind is KeyboardInterrupt:
            self.console.print(self.stopped)


class TrainScreen(_Screen):
    """What the user sees of one run."""

    def __init__(self, report: Report, command: str, out: Path, console: Console, loaded: Callable[[], None]) -> None:
        super().__init__(report, console, loaded)
        self.out = out
        self.stopped = f"stopped; {command} --out {out} --resume goes on after the last full epoch"

    def start(self, trainer: Any, start: Start) -> None:
        """Say what is about to be trained, and show the bar."""
        self.loaded()
        self.console.print(self.report.headline(trainer))
        if start.extended_from is not None:
            self.console.print(self.report.extension(trainer, start))
        elif start.done:
            self.console.print(f"continued after epoch {start.done}")
        summary = self.report.summary(trainer) if start.done else ""
        self.task = self.bar.add_task(summary, total=trainer.settings.epochs, completed=start.done)
        self.bar.start()
        trainer.on_step = lambda share: self.bar.update(self.task, completed=len(trainer.history) + share)

    def advance(self, trainer: Any) -> None:
        """Show the epoch that was just finished."""
        done, total = len(trainer.history), trainer.settings.epochs
        self.bar.update(self.task, description=self.report.summary(trainer), completed=done)
        if self.bar.disable and (done * _LINES // total > (done - 1) * _LINES // total):
            self.console.print(f"epoch {done}/{total}  {self.report.summary(trainer)}")

    def end(self, trainer: Any) -> None:
        """The last epoch in full, what there is to know of it, and what it cost."""
        headings, *rows = self.report.table(trainer)
        table = Table(title=f"After {counted(len(trainer.history), 'epoch')}", title_justify="left")
        for i, heading in enumerate(headings):
            table.add_column(heading, justify="right" if i else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        self.console.print(table)
        for remark in self.report.remarks(trainer):
            self.console.print(remark)
        self.console.print(f"{self.report.FILES} are in {self.out}")


class CompareScreen(_Screen):
    """One bar over all runs, and a table of what is compared."""

    stopped = "stopped; the same command goes on after the last full epoch"

    def __init__(
        self, recipe: Recipe, report: Report, runs: int, out: Path, console: Console, loaded: Callable[[], None]
    ) -> None:
        super().__init__(report, console, loaded)
        self.recipe, self.runs, self.out = recipe, runs, out
        self.failures: list[str] = []

    def start(self, run: Run, trainer: Any) -> None:
        """Say what is compared, once, and count what was done before."""
        epochs = trainer.settings.epochs
        if run.index == 0:
            self.loaded()
            self.task = self.bar.add_task("", total=self.runs * epochs)
            planned = f"{counted(self.runs, 'run')} of {counted(epochs, 'epoch')}"
            self.console.print(f"{planned}; the first:\n{self.report.headline(trainer)}")
            self.bar.start()
        if trainer.history:
            self.advance(run, trainer)

    def advance(self, run: Run, trainer: Any) -> None:
        """Show the epoch that was just finished."""
        done, epochs = len(trainer.history), trainer.settings.epochs
        metric = self.recipe.metrics[0]
        text = f"{run}: {metric.heading} {_number(trainer.history[-1][metric.key])}"  # leaves room for the bar
        self.bar.update(self.task, description=text, completed=run.index * epochs + done)
        if done == epochs:
            failure = self.report.failure(trainer)
            self.failures += [] if failure is None else [f"{run}: {failure}"]
            if self.bar.disable:
                self.console.print(f"{run.index + 1}/{self.runs}  {text}")

    def end(self, found: list[Compared]) -> None:
        """The variants, the best first."""
        recipe, (first, *others) = self.recipe, self.recipe.metrics
        seeds, epochs = len(found[0].histories), len(found[0].histories[0])
        spread = f"mean ± standard error of {seeds} seeds" if seeds > 1 else "one seed"
        title = f"{first.label[0].upper()}{first.label[1:]}\nafter {counted(epochs, 'epoch')}, {spread}"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0)  # narrow: it fits in 80 columns
        table.add_column(recipe.varies, no_wrap=True)
        notes = list(recipe.notes(found[0].settings))
        for name in (*notes, first.heading, "behind\nthe first", *(m.heading for m in others), "seconds\na run"):
            table.add_column(name, justify="right", no_wrap=True)
        for each in found:
            table.add_row(
                ":".join(word for word in each.name.split(":") if word.partition("=")[0] not in notes),
                *(_note(value) for value in recipe.notes(each.settings).values()),
                _figure(each.last(first.key)),
                "" if each is found[0] else _figure(each.behind(found[0], first.key)),
                *(_number(fmean(each.last(metric.key))) for metric in others),
                f"{fmean(each.seconds):.1f}",
            )
        self.console.print(table)
        if seeds > 1:
            self.console.print("Behind the first: seed by seed, so what the seeds have in common cancels.")
        self.console.print(f"compare.json, compare.png and the folder of each run are in {self.out}")


def _note(value: Any) -> str:
    """None as a dash, a list of equal numbers as one."""
    if value is None:
        return "-"
    values = value if isinstance(value, list) else [value]
    return ":".join(dict.fromkeys(f"{v:g}" if isinstance(v, float) else str(v) for v in values))


def _figure(values: list[float]) -> str:
    from softdraw.recipes.runs.comparison import estimate

    mean, error = estimate(values)
    return _number(mean) + ("" if error is None else f" ± {_number(error)}")


def _number(value: float) -> str:
    """Two decimals, where they mean something."""
    return f"{value:.2f}" if abs(value) < 1e5 else f"{value:.2e}"
