"""The pictures of a run, drawn off screen: what goes in and comes out, what the prior gives, which codes are used."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from softdraw.recipes.autoencoder.loop import LEAST, Trainer
from softdraw.recipes.autoencoder.model import kl_of_latents
from softdraw.recipes.runs.figures import png, settled, subplots

PICTURES = ("reconstructions.png", "samples.png", "codes.png", "curves.png")
_COLUMNS = 12
_TRAIN, _VALID, _NEITHER = "#0072b2", "#d55e00", "#666666"  # told apart with any colour vision


@torch.no_grad()
def draw_all(trainer: Trainer) -> dict[str, bytes]:
    """Every picture of a run as PNG, by file name."""
    figures = (_reconstructions(trainer), _samples(trainer), _codes(trainer), _curves(trainer))
    return {name: png(figure) for name, figure in zip(PICTURES, figures, strict=True)}


def _reconstructions(trainer: Trainer) -> Any:
    """Blocks of two rows: held-out images, and under each what the decoder makes of one draw of its code."""
    x = trainer.valid[: 3 * _COLUMNS]
    ids = torch.arange(len(x), device=x.device)
    out = trainer.pixel_logits(trainer.codes(trainer.valid, ids, draws=1)[1][0]).sigmoid()
    pairs = [row for a, b in zip(x.split(_COLUMNS), out.split(_COLUMNS), strict=True) for row in (a, b)]
    bits = trainer.history[-1]["valid_kl"] / math.log(2)
    title = f"Held-out images, and below each its reconstruction from one draw of its code ({bits:.1f} bits an image)"
    return _tiles(pairs, trainer.images.shape, title, group=2)


def _samples(trainer: Trainer) -> Any:
    """Codes drawn uniformly, the prior, and decoded."""
    settings = trainer.settings
    generator = torch.Generator().manual_seed(settings.seed)
    index = torch.randint(settings.categories, (5 * _COLUMNS, settings.groups), generator=generator)
    rows = trainer.pixel_logits(index.to(trainer.device)).sigmoid().split(_COLUMNS)
    return _tiles(list(rows), trainer.images.shape, "Decoded from the prior: codes drawn uniformly at random")


def _tiles(rows: list[Tensor], shape: tuple[int, ...], title: str, group: int = 1) -> Any:
    """Rows of images on one canvas, a white line between images and a wider one after every group of rows."""
    height, width, *channels = shape
    line = max(1, round(height / 8))
    count = max(len(row) for row in rows)
    below, bands = line, []
    for i, row in enumerate(rows):
        below = line if (i + 1) % group or group == 1 else 3 * line
        band = torch.ones((count, height + below, width + line, *channels))
        band[: len(row), :height, :width] = row.cpu().unflatten(-1, shape)
        bands.append(band.transpose(0, 1).flatten(1, 2))
    canvas = torch.cat(bands)[:-below, :-line]
    figure, axes = subplots(10, 10 * canvas.shape[0] / canvas.shape[1] + 0.5)
    axes.imshow(canvas.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, fontsize=11)
    return figure


def _codes(trainer: Trainer) -> Any:
    """How often each of the L x K codes is the most likely one, and beside it what each latent carries."""
    settings = trainer.settings
    logits = torch.cat([trainer.model.encode(part) for part in trainer.valid.split(512)]).cpu()  # (N, L, K)
    share = torch.nn.functional.one_hot(logits.argmax(-1), settings.categories).double().mean(0)  # (L, K)
    bits = kl_of_latents(logits).mean(0) / math.log(2)  # (L,)
    figure, (axes, carried) = subplots(
        max(6.5, min(15.0, 4.5 + 0.42 * settings.categories)),
        max(3.0, min(14.0, 1.5 + 0.3 * settings.groups)),
        ncols=2,
        sharey=True,
        width_ratios=(max(4, settings.categories), 4),
    )
    image = axes.imshow(100 * share.numpy(), cmap="viridis", vmin=0, aspect="auto", interpolation="nearest")
    axes.set(xlabel="category", ylabel="latent", title=f"Most likely codes of the {len(logits):,} held-out images")
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True, nbins=12)
    figure.colorbar(image, ax=axes, label=f"share of the images (%), uniform: {100 / settings.categories:.3g} %")
    carried.barh(range(settings.groups), bits.tolist(), color=_VALID)
    used = int((bits * math.log(2) >= LEAST).sum())
    carried.set(
        xlabel="bits an image", title=f"KL to the prior: {used} of {settings.groups}\ncarry {LEAST:g} nats or more"
    )
    carried.grid(axis="x", alpha=0.25)
    return figure


def _curves(trainer: Trainer) -> Any:
    """The nELBO in the range that matters, what shuffling the codes adds to it, tau, and the use of the codes."""
    history = trainer.history
    epochs = [record["epoch"] for record in history]
    heights = (3, 1, 1, 1) if trainer.settings.has_tau else (3, 1, 1)
    figure, (elbo, shuffled, *annealed, perplexity) = subplots(
        8, 9, nrows=len(heights), sharex=True, height_ratios=heights
    )
    _elbo(elbo, trainer, epochs)
    gaps = [record["valid_shuffled_nelbo"] - record["valid_nelbo"] for record in history]
    shuffled.plot(epochs, gaps, color=_VALID)
    shuffled.set(ylabel="codes shuffled:\nnats more")
    for tau in annealed:
        tau.plot(epochs, [record["tau"] for record in history], color=_TRAIN)
        tau.set(ylabel="tau")
    perplexity.plot(epochs, [record["valid_perplexity"] for record in history], color=_VALID)
    perplexity.set(ylabel="perplexity\nof the codes", xlabel="epoch", ylim=(1, 1.05 * trainer.settings.categories))
    perplexity.axhline(trainer.settings.categories, color=_NEITHER, linestyle=":", label="uniform use")
    perplexity.legend(frameon=False, loc="lower right")
    for axes in (elbo, shuffled, *annealed, perplexity):
        axes.grid(alpha=0.25)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.align_ylabels()
    return figure


def _elbo(axes: Any, trainer: Trainer, epochs: list[float]) -> None:
    """Both parts beside one image for all; what falls from a height in the first tenth of the epochs may be cut off."""
    curves = [[record[f"{part}_nelbo"] for record in trainer.history] for part in ("train", "valid")]
    none = trainer.without_code(trainer.valid)
    for curve, name, colour in zip(curves, ("training images", "held-out images"), (_TRAIN, _VALID), strict=True):
        axes.plot(epochs, curve, label=name, color=colour)
    axes.axhline(none, color=_NEITHER, linestyle=":", label="held-out images, one image for all")
    axes.set_ylim(*settled([*curves, [none]]))
    axes.set(ylabel="negative ELBO (nats per image)", title="The discrete model, by exact draws of its codes")
    axes.legend(loc="upper right", framealpha=1, edgecolor="none")
