"""Images from a file or from scikit-learn, checked, scaled to [0, 1] and split."""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softdraw.errors import InputError

_FEWEST = 10  # below this there is nothing to hold out
_NPZ_NAMES = ("images", "x_train", "x", "data")
_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


@dataclass(frozen=True)
class Images:
    """``train`` and ``valid`` are ``(N, H * W)`` float32 in [0, 1]; the fingerprint is that of all pixels."""

    train: Tensor
    valid: Tensor
    shape: tuple[int, int]
    fingerprint: str


def load(source: str, validation: float, generator: torch.Generator) -> Images:
    """The images of ``source``: ``digits`` or a file's path. ``generator`` decides which are held out."""
    raw = _digits() if source == "digits" else _read(Path(source))
    pixels, shape = _checked(raw, source)
    held_out = max(2, round(validation * len(pixels)))  # two: shuffling needs another image's code
    order = torch.randperm(len(pixels), generator=generator)
    return Images(
        train=pixels[order[held_out:]],
        valid=pixels[order[:held_out]],
        shape=shape,
        fingerprint=hashlib.sha256(repr(shape).encode() + pixels.numpy().tobytes()).hexdigest(),
    )


def _digits() -> np.ndarray:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise InputError("the digits come with scikit-learn: pip install 'softdraw[cli]', or give a file") from None
    digits: Any = load_digits()
    return digits.images


def _read(path: Path) -> np.ndarray:
    try:
        if not path.is_file():
            raise InputError(f"`data` {path}: no such file: give an .npy, .npz, idx or idx.gz file, or 'digits'")
        if path.suffix in (".npy", ".npz"):
            return _numpy(path)
        raw = path.read_bytes()
        return _idx(gzip.decompress(raw) if path.suffix == ".gz" else raw, path)
    except InputError:
        raise
    except Exception as error:  # numpy, zip and gzip have a dozen types of error for a broken file
        raise InputError(
            f"`data` {path} cannot be read ({_short(error)}): is it whole, and of the type it says?"
        ) from None


def _short(error: Exception) -> str:
    return str(error).partition("\n")[0][:120] or type(error).__name__


def _numpy(path: Path) -> np.ndarray:
    content = np.load(path, allow_pickle=False)
    if isinstance(content, np.ndarray):
        return content
    with content:
        names = content.files
        chosen = names if len(names) == 1 else [name for name in _NPZ_NAMES if name in names][:1]
        if not chosen:
            raise InputError(
                f"`data` {path} holds the arrays {', '.join(names) or '(none)'}: name the images one of "
                f"{', '.join(_NPZ_NAMES)}, or save them alone"
            )
        return content[chosen[0]]


def _idx(raw: bytes, path: Path) -> np.ndarray:
    """The format of MNIST: 0, 0, type, number of dimensions; their sizes; the values; all big-endian."""
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _IDX_TYPES or len(raw) < 4 + 4 * raw[3]:
        raise InputError(f"`data` {path} is not an idx file: give .npy, .npz, idx or idx.gz")
    shape = struct.unpack(f">{raw[3]}I", raw[4 : 4 + 4 * raw[3]])
    values = np.frombuffer(raw, _IDX_TYPES[raw[2]], offset=4 + 4 * raw[3])
    if values.size != math.prod(shape):
        raise InputError(f"`data` {path} says shape {shape} but holds {values.size} values: is it whole?")
    return values.reshape(shape)


def _checked(raw: np.ndarray, source: str) -> tuple[Tensor, tuple[int, int]]:
    """Pixels ``(N, H * W)`` in [0, 1], divided by the largest where that is above 1; and (H, W)."""
    where = f"`data` {source}"
    if raw.dtype.kind not in "buif":
        raise InputError(f"{where} holds values of type {raw.dtype}: pixels must be numbers")
    if raw.ndim not in (2, 3) or 0 in raw.shape[1:]:
        raise InputError(f"{where} has shape {raw.shape}: images must be (N, H, W) or (N, D)")
    if len(raw) < _FEWEST:
        raise InputError(f"{where} holds {len(raw)} images: at least {_FEWEST} are needed")
    with np.errstate(over="ignore"):  # an overflow is among the infinite pixels below
        values = raw.reshape(len(raw), -1).astype(np.float32)
    bad = ~np.isfinite(values)
    if bad.any():
        raise InputError(
            f"{where} has {bad.sum()} NaN or infinite pixels, the first in image {bad.any(1).argmax()}: clean it"
        )
    if values.min() < 0:
        raise InputError(f"{where} has pixels below 0 (smallest {values.min():g}): give grey values from 0 up")
    shape = (raw.shape[1], raw.shape[2]) if raw.ndim == 3 else _sides(raw.shape[1])
    return torch.from_numpy(values / max(1.0, float(values.max()))), shape


def _sides(size: int) -> tuple[int, int]:
    """The two factors closest to a square, to show a flat image."""
    height = next(h for h in range(math.isqrt(size), 0, -1) if size % h == 0)
    return height, size // height
