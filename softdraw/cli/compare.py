"""``softdraw compare``: which gradient rule trains best, each on the same data and seeds."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softdraw.cli.options import (
    Batch,
    Data,
    Device,
    Epochs,
    Latents,
    Lr,
    Schedule,
    Tau,
    check_tau_is_used,
    chosen,
    use_one_thread,
)

if TYPE_CHECKING:
    from softdraw.recipes.compare import Run
    from softdraw.recipes.compared import Compared
    from softdraw.recipes.loop import Trainer


def compare(
    rules: Annotated[
        str, typer.Option(help="Rules, separated by commas; one without its tau follows --tau and --schedule.")
    ] = "gumbel-softmax,straight-through-gumbel,st:tau=1,zgr,reinmax:tau=1.1",
    seeds: Annotated[int, typer.Option(help="Runs of each rule, with the seeds 0, 1, ...")] = 3,
    data: Data = None,
    latents: Latents = None,
    tau: Tau = None,
    schedule: Schedule = None,
    epochs: Epochs = None,
    batch: Batch = None,
    lr: Lr = None,
    out: Annotated[
        Path, typer.Option(help="The folder of the comparison; one that was stopped goes on where it was.")
    ] = Path("runs/compare"),
    device: Device = None,
) -> None:
    """Train the autoencoder of softdraw train with each gradient rule, on the same data and seeds, and compare.

    Writes a run's folder for every rule and seed, and compare.json and compare.png, to --out. The same command
    continues a comparison that was stopped; --rules and --seeds may then name more.
    """
    from softdraw.recipes.compare import compare, plan

    use_one_thread()
    others: dict[str, Any] = {"data": data, "schedule": schedule, "epochs": epochs, "batch_size": batch}
    given = chosen(latents, tau, **others, learning_rate=lr, device=device)
    runs = plan(rules.split(","), seeds)
    check_tau_is_used([run.given for run in runs], tau, schedule)
    display = _Display(len(runs))
    with display:
        found = compare(given, runs, out, display.start, display.advance)
    display.table(found)
    display.console.print(f"compare.json, compare.png and the folder of each run are in {out}")


class _Display:
    """One bar over all runs on a terminal, a line a run elsewhere, and a table at the end."""

    def __init__(self, runs: int) -> None:
        from softdraw.cli.display import console, progress

        self.runs = runs
        self.console = console()
        self.bar = progress(self.console)

    def __enter__(self) -> _Display:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()
        if kind is KeyboardInterrupt:
            self.console.print("stopped; the same command goes on after the last full epoch")

    def start(self, run: Run, trainer: Trainer) -> None:
        """Say what is compared, once, and count what was done before."""
        epochs = trainer.settings.epochs
        if run.index == 0:
            self.task = self.bar.add_task("", total=self.runs * epochs)
            self.console.print(
                f"{trainer.settings.data}: {self.runs} runs of {epochs} epochs on {len(trainer.images.train):,} "
                f"images, {len(trainer.images.valid):,} held out, {trainer.settings.device}"
            )
            self.bar.start()
        if trainer.history:
            self.advance(run, trainer)

    def advance(self, run: Run, trainer: Trainer) -> None:
        """Show the epoch that was just finished."""
        from softdraw.cli.display import summary

        done, epochs = len(trainer.history), trainer.settings.epochs
        text = f"{run}: {summary(trainer)}"
        self.bar.update(self.task, description=text, completed=run.index * epochs + done)
        if self.bar.disable and done == epochs:
            self.console.print(f"{run.index + 1}/{self.runs}  {text}")

    def table(self, found: list[Compared]) -> None:
        """The rules, the best first."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        seeds = len(found[0].nelbo)
        title = f"Held-out images after {len(found[0].histories[0])} epochs, nats per image, " + (
            f"mean ± standard error of {seeds} seeds" if seeds > 1 else "one seed"
        )
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0)  # narrow: it fits in 80 columns
        table.add_column("rule", no_wrap=True)
        for name in ("tau", "nELBO", "behind\nthe first", "recon-\nstruction", "KL", "seconds\na run"):
            table.add_column(name, justify="right", no_wrap=True)
        for each in found:
            behind = "" if each is found[0] else _figure(each.behind(found[0]))
            means = (each.last("valid_reconstruction"), each.last("valid_kl"))
            table.add_row(
                each.name.partition(":tau=")[0],
                _tau(each.tau),
                _figure(each.nelbo),
                behind,
                *(f"{fmean(values):.2f}" for values in means),
                f"{fmean(each.seconds):.1f}",
            )
        self.console.print(table)
        if seeds > 1:
            self.console.print("Behind the first: seed by seed, so what the seeds have in common cancels.")


def _tau(tau: list[float] | None) -> str:
    if tau is None:
        return "-"
    start, end = tau
    return f"{start:g}" if start == end else f"{start:g}:{end:g}"


def _figure(values: list[float]) -> str:
    from softdraw.recipes.compared import estimate

    mean, error = estimate(values)
    return f"{mean:.2f}" + ("" if error is None else f" ± {error:.2f}")
