"""``softdraw sample``: relaxed or exact draws from logits given on the command line, and how often each class comes."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from softdraw.errors import InputError, counted

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN = 10  # draws of each row of logits that are printed one by one
_CHUNK = 2**20  # scores held at once while counting
_HOW = "give rows of numbers as in '1,2,3; 2,1,0.5', an .npy or CSV file, or - for standard input"


def sample(
    logits: Annotated[
        str, typer.Argument(help="Rows of logits as in '1,2,3; 2,1,0.5', an .npy or CSV file, or - for standard input.")
    ] = "-",
    tau: Annotated[float, typer.Option(help="Relaxes the samples, > 0; it moves no class frequency.")] = 1.0,
    hard: Annotated[bool, typer.Option("--hard", help="Print one-hots, the exact draws.")] = False,
    seed: Annotated[int, typer.Option(help="The same seed gives the same draws.")] = 0,
    draws: Annotated[int, typer.Option(help="Draws from each row; above 1, class frequencies are printed too.")] = 1,
) -> None:
    """Draw from the categorical law of some logits."""
    if not 0 < tau < math.inf:
        raise InputError(f"--tau must be positive and finite, got {tau}")
    if not -(2**63) <= seed < 2**64:
        raise InputError(f"--seed must fit in 64 bits, got {seed}")
    if not 1 <= draws <= 10**9:
        raise InputError(f"--draws must be from 1 to 1e9, got {draws}")
    x = _checked(_read(logits))
    _print_samples(x, tau, hard, seed, draws)
    if draws > 1:
        _print_frequencies(x, seed, draws)


def _print_samples(x: Tensor, tau: float, hard: bool, seed: int, draws: int) -> None:
    """The first draws as a table; draw i of row r has noise row i * rows + r, here and where draws are counted."""
    import softdraw

    shown = min(draws, _SHOWN)
    y = softdraw.gumbel_softmax(x.expand(shown, *x.shape), tau, hard, seed=seed)
    print(f"{'one-hot' if hard else 'relaxed'} samples, tau {tau:g}, seed {seed}")
    print("  row  draw  " + "".join(f"{k:>9}" for k in range(x.shape[-1])))
    for row in range(len(x)):
        for draw in range(shown):
            values = "".join(f"{v:>9.0f}" if hard else f"{v:>9.4f}" for v in y[draw, row].tolist())
            print(f"{row:>5}{draw:>6}  {values}")
    if shown < draws:
        print(f"  ... the first {shown} of {counted(draws, 'draw')}")


def _print_frequencies(x: Tensor, seed: int, draws: int) -> None:
    """How often each class came beside its probability, in units of the standard error sqrt(p (1 - p) / draws)."""
    counts = _counts(x, seed, draws)
    print(
        f"\nclass frequencies over {counted(draws, 'draw')} (z: distance from the exact probability in standard errors)"
    )
    print("  row class  frequency  exact     std. error      z")
    for row, exact in enumerate(x.double().softmax(-1).tolist()):
        for k, p in enumerate(exact):
            frequency, error = counts[row][k] / draws, math.sqrt(p * (1 - p) / draws)
            z = f"{(frequency - p) / error:+.2f}" if error else "-"
            print(f"{row:>5}{k:>6}  {frequency:<9.5f}  {p:<9.5f} {error:<9.5f}  {z:>6}")


def _counts(x: Tensor, seed: int, draws: int) -> list[list[int]]:
    import torch

    import softdraw

    rows, classes = x.shape
    counts = torch.zeros(rows, classes, dtype=torch.int64)
    step = max(1, _CHUNK // x.numel())
    for first in range(0, draws, step):
        n = min(step, draws - first)
        index = softdraw.gumbel_max(x.expand(n, rows, classes), seed=seed, rows=first * rows)  # (n, rows)
        counts.scatter_add_(1, index.T, torch.ones_like(index.T))
    return counts.tolist()


def _read(argument: str) -> Tensor:
    """Logits ``(rows, classes)`` from standard input, a file, or the argument itself."""
    import torch

    if argument == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise InputError(f"no logits: {_HOW}")
        return _parsed(sys.stdin.read(), "standard input")
    path = Path(argument)
    try:
        if not _is_file(path):
            return _parsed(argument, repr(argument))
        if path.suffix != ".npy":
            return _parsed(path.read_text(), argument)
        import numpy as np

        content = np.load(path, allow_pickle=False)
        if content.dtype.kind not in "buif":
            raise InputError(f"{argument!r} holds values of type {content.dtype}: logits must be real numbers")
        return torch.from_numpy(np.atleast_2d(content.astype(np.float64)))
    except InputError:
        raise
    except Exception as error:  # numpy has many types of error for a broken file
        raise InputError(f"{argument!r} cannot be read ({error}): {_HOW}") from None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # longer than a name may be: numbers, then
        return False


def _parsed(text: str, where: str) -> Tensor:
    """Rows end at a semicolon or a line's end; numbers are set apart by commas or blanks."""
    import torch

    lines = [line.replace(",", " ").split() for line in text.replace(";", "\n").splitlines()]
    try:
        rows = [[float(number) for number in line] for line in lines if line]
    except ValueError:
        raise InputError(f"{where} is neither numbers nor a file: {_HOW}") from None
    if not rows:
        raise InputError(f"{where} holds no logits: {_HOW}")
    if len({len(row) for row in rows}) > 1:
        raise InputError(f"{where} has rows of {', '.join(str(len(row)) for row in rows)} numbers: all must be alike")
    return torch.tensor(rows, dtype=torch.float64)


def _checked(x: Tensor) -> Tensor:
    if x.dim() != 2 or x.numel() == 0:
        raise InputError(f"logits must be (rows, classes), got the shape {tuple(x.shape)}")
    if (x.isnan() | (x == math.inf)).any():
        raise InputError("logits hold NaN or +inf: give finite numbers (-inf forbids a class)")
    if (x == -math.inf).all(-1).any():
        raise InputError("a row of logits is all -inf: allow at least one class")
    return x
