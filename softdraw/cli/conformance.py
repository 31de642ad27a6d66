"""``softdraw conformance``: whether your own sampler keeps the promises of this library's draws."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from softdraw.cli.places import importable, named, own_errors


def conformance(
    sampler: Annotated[
        str,
        typer.Argument(help="module:function or path/to/file.py:function; it maps (logits, seed, rows) to indices."),
    ],
    seed: Annotated[int, typer.Option(help="The first of the seeds that the checks use.")] = 0,
    device: Annotated[str, typer.Option(help="Where the logits are.")] = "cpu",
    tail: Annotated[int, typer.Option(help="Noise values for the check of the tail; 0 leaves it out.")] = 2**30,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Law, tail, ids, batch order and size, masks and independence of a sampler; exit code 1 if one check fails."""
    from softdraw.conformance import check

    with own_errors(sampler), importable(sampler, "sampler") as module:
        call: Any = named(sampler, module)
        report = check(call, seed=seed, device=device, tail=tail)  # which refuses what is no function
    print(json.dumps(report.to_dict(), indent=2) if as_json else report)
    if not report.passed:
        raise typer.Exit(1)
