"""``softdraw train diffusion``: a small language model, from one command to text that appears as it is written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from softdraw.cli.options import Resume, Seed
from softdraw.cli.train.start import Chosen, train

if TYPE_CHECKING:
    from rich.console import Console

    from softdraw.recipes.diffusion.writing import Writing


def diffusion(
    data: Annotated[
        str | None, typer.Option(help="pydoc, which is Python's own manual, or a text file in UTF-8.  [pydoc]")
    ] = None,
    length: Annotated[int | None, typer.Option(help="Characters of a sequence.  [128]")] = None,
    width: Annotated[int | None, typer.Option(help="Of the transformer, a multiple of 32.  [96]")] = None,
    layers: Annotated[int | None, typer.Option(help="Of the transformer.  [3]")] = None,
    experts: Annotated[
        int | None, typer.Option(help="Feed-forward layers of a block; a router takes two a character.  [1: no router]")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training sequences.  [6]")] = None,
    batch: Annotated[int | None, typer.Option(help="Sequences a step, over all ranks.  [32]")] = None,
    lr: Annotated[float | None, typer.Option(help="Adam's learning rate at its highest.  [0.003]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...  [auto]")] = None,
    seed: Seed = None,
    texts: Annotated[int, typer.Option(help="How many texts to write at the end.")] = 4,
    steps: Annotated[int | None, typer.Option(help="In which a text is written.  [one a character]")] = None,
    temperature: Annotated[float, typer.Option(help="Of the characters: 1 is the model's law, 0 its mode.")] = 0.8,
    order: Annotated[
        float, typer.Option(help="Temperature of the order: 0 writes what is surest first, inf is any order.")
    ] = 4.0,
    out: Annotated[Path, typer.Option(help="The run's folder; holds no run yet, unless --resume.")] = Path(
        "runs/diffusion"
    ),
    resume: Resume = False,
) -> None:
    """Train a masked-diffusion language model on text, and watch it write.

    Without options: characters of Python's own manual, no download. Prints the bound on held-out text beside unigrams
    and bigrams, then texts. Writes config.json, metrics.jsonl, checkpoint.pt and curves.png to --out. With --resume a
    finished run writes texts again: --texts, --steps, --temperature and --order may differ. Several processes: torchrun
    --nproc-per-node 2 -m softdraw train diffusion
    """
    chosen = {
        "data": data, "length": length, "width": width, "layers": layers, "experts": experts,
        "epochs": epochs, "batch_size": batch, "learning_rate": lr, "device": device, "seed": seed,
    }  # fmt: skip

    def choose() -> Chosen:
        from softdraw.recipes.diffusion import DIFFUSION, report
        from softdraw.recipes.diffusion.writing import Writing

        how = Writing(texts, steps, temperature, order)
        given = {name: value for name, value in chosen.items() if value is not None}
        return Chosen(DIFFUSION, report, given, out, resume, lambda trainer, console: _show(trainer, console, how))

    train("softdraw train diffusion", "torch and the text", choose)


def _show(trainer: Any, console: Console, how: Writing) -> None:
    """On a terminal texts appear place by place; elsewhere a few lines of the first, and then all."""
    import torch

    from softdraw.cli.canvas import Canvas
    from softdraw.recipes.diffusion.writing import write

    s, text = trainer.settings, trainer.text
    if how.texts == 0:
        return
    with Canvas(console, s.length) as canvas:
        for now in write(trainer.model, s.length, torch.arange(how.texts, device=trainer.device), s.seed, how):
            written = int((now[0] != trainer.model.mask).sum())
            canvas.update([text.words(row, canvas.blank) for row in now.cpu()], written)
