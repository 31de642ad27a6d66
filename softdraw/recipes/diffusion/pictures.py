"""The course of a run, beside what unigrams and bigrams reach."""

from __future__ import annotations

from softdraw.recipes.diffusion.loop import Trainer
from softdraw.recipes.runs import figures

PICTURES = ("curves.png",)


def draw_all(trainer: Trainer) -> dict[str, bytes]:
    """The content of each picture, by name."""
    figure, axes = figures.subplots(7, 4.5)
    epochs = [record["epoch"] for record in trainer.history]
    for key, label, colour in (
        ("valid_bound", "held-out text", "#0072b2"),
        ("objective", "training text, over the epoch", "#56b4e9"),
    ):
        axes.plot(epochs, [record[key] for record in trainer.history], marker=".", label=label, color=colour)
    for (name, value), style in zip(trainer.baselines.items(), (":", "--"), strict=True):
        axes.axhline(value, linestyle=style, color="#000000", label=f"{name}s, held-out text")
    axes.set(xlabel="epoch", ylabel="nats per character", title="Bound of the masked-diffusion model")
    axes.legend(frameon=False, loc="center right")
    axes.grid(alpha=0.25)
    axes.xaxis.get_major_locator().set_params(integer=True)
    return {"curves.png": figures.png(figure)}
