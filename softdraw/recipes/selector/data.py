"""A table of features with a class for each row: bundled with scikit-learn, or the user's own; and its splits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softdraw.errors import InputError

NEEDED = "needs scikit-learn: pip install 'softdraw[cli]'"
_FEWEST = 10  # rows: below this there is nothing to hold out
_WIDEST = 5.0  # standard deviations: a pixel that is dark in all images but three has values of 40 of them


@dataclass(frozen=True)
class Features:
    """``x`` is ``(N, n)`` float32, ``y`` ``(N,)`` int64 from 0 on. ``shape`` is (H, W) where features are pixels."""

    x: Tensor
    y: Tensor
    names: list[str]
    shape: tuple[int, int] | None
    fingerprint: str

    @property
    def classes(self) -> int:
        """How many there are."""
        return int(self.y.max()) + 1


@dataclass(frozen=True)
class Splits:
    """A split for every seed: ``x`` ``(R, N, n)`` and ``y`` ``(R, N)`` to train on, ``valid_x`` and ``valid_y`` held
    out. Features have mean 0 and standard deviation 1 in the training part, so a feature that is left out, a zero, is
    an average one."""

    x: Tensor
    y: Tensor
    valid_x: Tensor
    valid_y: Tensor

    def to(self, device: torch.device) -> Splits:
        """The same on another device."""
        return Splits(*(part.to(device) for part in (self.x, self.y, self.valid_x, self.valid_y)))


def load(source: str) -> Features:
    """The table ``digits`` or ``cancer``, or the arrays x and y of an .npz file.

    Raises:
        InputError: it cannot be read, has no shape or values of such a table, or scikit-learn is missing.
    """
    x, y, names, shape = _bundled(source) if source in ("digits", "cancer") else _file(source)
    x, labels = _checked(np.asarray(x), np.asarray(y), f"`data` {source}")
    digest = hashlib.sha256(repr(x.shape).encode() + x.tobytes() + labels.tobytes()).hexdigest()
    names = names or [str(i) for i in range(x.shape[1])]
    return Features(torch.from_numpy(x), torch.from_numpy(labels), names, shape, digest)


def _bundled(source: str) -> tuple[Any, Any, list[str] | None, tuple[int, int] | None]:
    try:
        from sklearn import datasets
    except ModuleNotFoundError:
        raise InputError(f"the data {source} {NEEDED}, or give `data`") from None
    table: Any = datasets.load_digits() if source == "digits" else datasets.load_breast_cancer()
    if source == "digits":
        return table.data, table.target, [f"row {i // 8} column {i % 8}" for i in range(64)], (8, 8)
    return table.data, table.target, [str(name) for name in table.feature_names], None


def _file(source: str) -> tuple[Any, Any, None, None]:
    path = Path(source)
    if not path.is_file():
        raise InputError(f"`data` {source}: no such file in {Path.cwd()}: give digits, cancer, or an .npz file")
    try:
        with np.load(path, allow_pickle=False) as content:
            return content["x"], content["y"], None, None
    except Exception:  # numpy and zip have many types of error for a broken file
        raise InputError(
            f"`data` {source} is not an .npz file with the arrays x, (N, n), and y, (N,): write it by "
            "numpy.savez(path, x=x, y=y)"
        ) from None


def _checked(x: np.ndarray, y: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """The features as float32 and the classes numbered from 0, in the order of their labels."""
    if x.ndim != 2 or y.shape != x.shape[:1] or x.shape[1] < 2:
        raise InputError(
            f"{where} has x of shape {x.shape} and y of shape {y.shape}: they must be (N, n >= 2) and (N,)"
        )
    if len(x) < _FEWEST:
        raise InputError(f"{where} has {len(x)} rows: at least {_FEWEST} are needed")
    if x.dtype.kind not in "buif" or y.dtype.kind not in "buiUS":
        raise InputError(f"{where} has x of {x.dtype} and y of {y.dtype}: x must be numbers, y integers or text")
    with np.errstate(over="ignore"):
        x = np.ascontiguousarray(x, np.float32)
    if not np.isfinite(x).all():
        raise InputError(f"{where} has {int((~np.isfinite(x)).sum())} NaN or infinite features: clean it")
    labels, numbers = np.unique(y, return_inverse=True)
    if len(labels) < 2:
        raise InputError(f"{where} has one class, {labels[0]}: at least two are needed")
    if 2 * len(labels) > len(x):
        raise InputError(f"{where} has {len(labels)} classes in {len(x)} rows: y must be classes, not values")
    return x, np.ascontiguousarray(numbers, np.int64)


def split(features: Features, seeds: int, validation: float, generator: torch.Generator) -> Splits:
    """``seeds`` splits at random."""
    parts = [_split(features, validation, torch.randperm(len(features.x), generator=generator)) for _ in range(seeds)]
    return Splits(*(torch.stack(each) for each in zip(*parts, strict=True)))


def _split(features: Features, validation: float, order: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    held_out, kept = order.split([round(validation * len(order)), len(order) - round(validation * len(order))])
    x = features.x.double()
    mean, deviation = x[kept].mean(0), x[kept].std(0)
    scaled = (x - mean) / torch.where(deviation > 0, deviation, 1)
    scaled = scaled.clamp(-_WIDEST, _WIDEST).float()
    return scaled[kept], features.y[kept], scaled[held_out], features.y[held_out]
