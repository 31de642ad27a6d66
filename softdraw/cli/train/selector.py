"""``softdraw train selector``: k features of n for a small network, chosen in several ways side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from softdraw.cli.options import Resume, Seed, parse_tau
from softdraw.cli.train.start import Chosen, train


def selector(
    data: Annotated[
        str | None,
        typer.Option(help="digits, cancer, or an .npz file with x (N, n) and the classes y (N,).  [digits]"),
    ] = None,
    sizes: Annotated[str | None, typer.Option(help="Numbers k of features, in ascending order.  [5,10,20]")] = None,
    rules: Annotated[
        str | None,
        typer.Option(help="Rules of the k-subsets, separated by commas, as zgr,imle:lam=10.  [all that serve them]"),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Splits and first weights that all is repeated with.  [5]")] = None,
    tau: Annotated[str | None, typer.Option(help="Of the laws of all selectors, start:end.  [10:0.1]")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training rows.  [40]")] = None,
    batch: Annotated[int | None, typer.Option(help="Rows a step.  [64]")] = None,
    lr: Annotated[float | None, typer.Option(help="Adam's learning rate, of the networks.  [0.005]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...  [auto]")] = None,
    seed: Seed = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The run's folder; holds no run yet, unless --resume.  [runs/selector- and the data]"),
    ] = None,
    resume: Resume = False,
) -> None:
    """Choose k of n features so that a small network does its task from them: k-subsets beside other selectors.

    Without options: 5, 10 and 20 of the 64 pixels of scikit-learn's digits, by k-subsets with each gradient rule, by
    the concrete selector, by mutual information and by an L1 penalty. Writes chosen.json, chosen.png, curves.png,
    config.json, metrics.jsonl and checkpoint.pt to --out.
    """

    def choose() -> Chosen:
        from softdraw.recipes.selector import SELECTOR, report

        given = {
            "data": data,
            "sizes": sizes,
            "rules": rules,
            "seeds": seeds,
            "epochs": epochs,
            "batch_size": batch,
            "learning_rate": lr,
            "device": device,
            "seed": seed,
            **(parse_tau(tau) if tau is not None else {}),
        }
        chosen = {name: value for name, value in given.items() if value is not None}
        place = out or Path("runs") / f"selector-{Path(data or 'digits').stem}"
        return Chosen(SELECTOR, report, chosen, place, resume)

    train("softdraw train selector", "torch and scikit-learn", choose)
