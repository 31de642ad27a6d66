"""Images checked, scaled to [0, 1] and split."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from softdraw.errors import InputError, counted
from softdraw.recipes.autoencoder.files import read

_FEWEST = 10  # below this there is nothing to hold out
_CHUNK = 2**22  # pixels that are looked at together: of a file that stays on the disk, no more is in the memory at once


@dataclass(frozen=True)
class Images:
    """``train`` and ``valid`` are ``(N, D)`` float32 in [0, 1]; the fingerprint is that of all pixels.

    ``shape`` is (H, W), or (H, W, 3) in colour; D is its product.
    """

    train: Tensor
    valid: Tensor
    shape: tuple[int, ...]
    fingerprint: str


def load(source: str, validation: float, generator: torch.Generator) -> Images:
    """The images of ``source``: ``digits``, or the path of a file or folder.

    Pixels are divided by the largest where that is above 1. In colour every channel is a pixel of its own.

    Args:
        source: what :func:`softdraw.recipes.autoencoder.files.read` takes.
        validation: the share that is held out.
        generator: decides which are.

    Raises:
        InputError: they cannot be read, have no shape or values of images, or do not fit in the memory.
    """
    raw = read(source)
    where = f"`data` {source}"
    raw, shape = _shaped(raw, where)
    pixels = _room((len(raw), math.prod(shape)), where)
    largest = max(1.0, _largest(raw, where))
    order = torch.randperm(len(raw), generator=generator)
    place = order.argsort().numpy()
    digest = hashlib.sha256(repr(shape).encode())
    for start, part in _chunks(raw):
        part /= largest
        digest.update(part.data)
        pixels[place[start : start + len(part)]] = part
    held_out = max(2, round(validation * len(raw)))  # two: shuffling needs another image's code
    whole = torch.from_numpy(pixels)
    return Images(whole[held_out:], whole[:held_out], shape, digest.hexdigest())


def _shaped(raw: np.ndarray, where: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """The images with their channels last, and the shape of one."""
    if raw.dtype.kind not in "buif":
        raise InputError(f"{where} holds values of type {raw.dtype}: pixels must be numbers")
    if raw.ndim == 4 and raw.shape[-1] not in (1, 3) and raw.shape[1] in (1, 3):
        raw = np.moveaxis(raw, 1, -1)
    if raw.ndim == 4 and raw.shape[-1] == 1:
        raw = raw[..., 0]
    if raw.ndim not in (2, 3, 4) or 0 in raw.shape[1:] or (raw.ndim == 4 and raw.shape[-1] != 3):
        raise InputError(
            f"{where} has shape {raw.shape}: images must be (N, H, W) or (N, D), or in colour (N, H, W, 3) or "
            "(N, 3, H, W)"
        )
    if len(raw) < _FEWEST:
        raise InputError(f"{where} holds {counted(len(raw), 'image')}: at least {_FEWEST} are needed")
    return raw, _sides(raw.shape[1]) if raw.ndim == 2 else raw.shape[1:]


def _chunks(raw: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """``raw`` in order, a part at a time, as new ``(n, D)`` float32 arrays, each with the number of its first image."""
    size = math.prod(raw.shape[1:])
    step = max(1, _CHUNK // size)
    for start in range(0, len(raw), step):
        with np.errstate(over="ignore"):  # an overflow is among the infinite pixels that are refused
            yield start, np.array(raw[start : start + step], np.float32, order="C").reshape(-1, size)


def _largest(raw: np.ndarray, where: str) -> float:
    """The largest value of a pixel; none may be NaN, infinite or below 0."""
    count, first, lowest, highest = 0, -1, math.inf, -math.inf
    for start, part in _chunks(raw):
        bad = ~np.isfinite(part)
        if bad.any():
            first = first if count else start + int(bad.any(1).argmax())
            count += int(bad.sum())
        lowest, highest = min(lowest, float(part.min())), max(highest, float(part.max()))
    if count:
        raise InputError(f"{where} has {count} NaN or infinite pixels, the first in image {first}: clean it")
    if lowest < 0:
        raise InputError(f"{where} has pixels below 0 (smallest {lowest:g}): give values from 0 up")
    return highest


def _room(shape: tuple[int, int], where: str) -> np.ndarray:
    """Memory for the pixels, or an error before the system ends the program for want of it."""
    needed, there = 4 * math.prod(shape), _available()
    try:
        if there is not None and needed > there:
            raise MemoryError
        return np.empty(shape, np.float32)
    except MemoryError:
        has = "" if there is None else f", and {there / 2**30:.1f} GiB are available"
        raise InputError(
            f"{where} does not fit in the memory: {counted(shape[0], 'image')} of {counted(shape[1], 'pixel')} take "
            f"{needed / 2**30:.1f} GiB as float32{has}: take fewer or smaller images"
        ) from None


def _available() -> int | None:
    """Bytes that a program may still take, where the system says so (Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None


def _sides(size: int) -> tuple[int, int]:
    """The two factors closest to a square, to show a flat image."""
    height = next(h for h in range(math.isqrt(size), 0, -1) if size % h == 0)
    return height, size // height
