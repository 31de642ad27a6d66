"""What is compared: the lines by group, and the calls of one line at one size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from softdraw.bench import cuda, draws, indices, laws, linear, losses, modules, rules, subsets
from softdraw.bench.line import Line, Ways

GROUPS: dict[str, dict[str, Line]] = {
    "draws": draws.LINES,
    "rules": rules.LINES,
    "laws": laws.LINES,
    "losses": losses.LINES,
    "indices": indices.LINES,
    "subsets": subsets.LINES,
    "modules": modules.LINES,
    "linear": linear.LINES,
}
LINES = {name: line for lines in GROUPS.values() for name, line in lines.items()}
OPERATIONS = tuple(LINES)


def left_out(operations: Iterable[str]) -> list[str]:
    """A sentence for each way that the lines have and this machine has not."""
    return [
        f"{operation} without {name}, which is not installed: pip install {package}"
        for operation in operations
        for name, package in LINES[operation].left_out().items()
    ]


@dataclass(frozen=True)
class Setting:
    """One line of the table."""

    operation: str  # one of OPERATIONS
    rows: int
    cols: int
    dtype: torch.dtype
    threads: int
    device: str = "cpu"

    @property
    def bytes_moved(self) -> int:
        """What the operation must read and write: the table of passes in the README of benchmarks."""
        return LINES[self.operation].bytes_moved(self.rows, self.cols, self.dtype.itemsize)

    @property
    def samples(self) -> int:
        """How often noise is drawn for one result."""
        return LINES[self.operation].samples


def contestants(setting: Setting) -> Ways:
    """Calls by name, ours first, then copies: each does all of the operation. Compiled ones are compiled here."""
    x = torch.randn(setting.rows, setting.cols, generator=torch.Generator().manual_seed(0))
    x = x.to(setting.device, setting.dtype)
    index, on_gpu = setting.operation in ("index", *indices.LINES), setting.device == "cuda"
    passes: Ways = {}
    if index and on_gpu:
        passes["read"] = lambda: cuda.read(x)
    if on_gpu or not index:
        passes["clone"] = x.clone
    if on_gpu:
        passes["softmax"] = lambda: x.softmax(-1)
    return LINES[setting.operation].ways(x) | passes
