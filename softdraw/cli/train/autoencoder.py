"""``softdraw train autoencoder``: a discrete autoencoder on real images, from one command to its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from softdraw.cli.options import Options, Resume, Seed, takes_options
from softdraw.cli.train.start import Chosen, train
from softdraw.errors import InputError


@takes_options
def autoencoder(
    options: Options,
    rule: Annotated[
        str | None,
        typer.Option(
            help="The gradient rule, as zgr or reinmax:tau=1.1; without its tau it follows --tau.  [gumbel-softmax]"
        ),
    ] = None,
    hard: Annotated[
        bool | None,
        typer.Option("--hard/--soft", help="Short for --rule straight-through-gumbel, or gumbel-softmax.  [soft]"),
    ] = None,
    seed: Seed = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The run's folder; holds no run yet, unless --resume.  [runs/ and the name of the data]"),
    ] = None,
    resume: Resume = False,
) -> None:
    """Train a categorical variational autoencoder on real images through discrete draws.

    Without options: scikit-learn's 1,797 scanned digits, no download. Writes config.json, metrics.jsonl, checkpoint.pt
    and four pictures to --out. A run that diverges ends with exit code 1. Several processes: torchrun
    --nproc-per-node 2 -m softdraw train ...
    """

    def choose() -> Chosen:
        from softdraw.recipes.autoencoder import AUTOENCODER, report

        given: dict[str, Any] = options.settings() | _rule(rule, hard, options)
        given |= {"seed": seed} if seed is not None else {}
        place = out or Path("runs") / _name(given.get("data", "digits"))
        return Chosen(AUTOENCODER, report, given, place, resume)

    train("softdraw train", "torch and the images", choose)


def _rule(rule: str | None, hard: bool | None, options: Options) -> dict[str, Any]:
    """The settings that --rule, --hard or --soft stand for."""
    from softdraw.recipes.autoencoder.settings import rule_settings

    if hard is not None:
        short = "straight-through-gumbel" if hard else "gumbel-softmax"
        if rule is not None:
            raise InputError(f"--{'hard' if hard else 'soft'} is short for --rule {short}, got --rule {rule} as well")
        rule = short
    if rule is None:
        return {}
    words = rule_settings(rule)
    options.check_tau_is_used([words])
    return words


def _name(data: str) -> str:
    """What a run on these images is called: the name of their file or folder."""
    return Path(data).resolve().name.partition(".")[0] or "images"
