"""Images as arrays, as they are in a file or a folder. Files of a format that can be mapped stay on the disk."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from softdraw.errors import InputError
from softdraw.recipes.autoencoder.folders import read_folder

_NPZ_NAMES = ("images", "x_train", "x", "data")
_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_KINDS = ".npy, .npz, idx or idx.gz"


def read(source: str) -> np.ndarray:
    """The images of ``source``: ``digits``, the path of a file, or that of a folder of image files.

    Raises:
        InputError: it is not there, or cannot be read, or does not fit in the memory.
    """
    if source == "digits":
        return _digits()
    path = Path(source)
    try:
        if path.is_dir():
            return read_folder(path)
        if not path.is_file():
            raise InputError(
                f"`data` {path}: no such file in {Path.cwd()}: give an {_KINDS} file, a folder of images, or 'digits'"
            )
        if path.suffix in (".npy", ".npz"):
            return _numpy(path)
        return _idx(path)
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(
            f"`data` {path} does not fit in the memory ({_short(error)}): take fewer images, or save them as .npy in "
            "8 bits, which stays on the disk"
        ) from None
    except Exception as error:  # numpy, zip and gzip have a dozen types of error for a broken file
        raise InputError(
            f"`data` {path} cannot be read ({_short(error)}): is it whole, and of the type it says?"
        ) from None


def _short(error: Exception) -> str:
    return str(error).partition("\n")[0][:120] or type(error).__name__


def _digits() -> np.ndarray:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise InputError("the digits come with scikit-learn: pip install 'softdraw[cli]', or give `data`") from None
    digits: Any = load_digits()
    return digits.images


def _numpy(path: Path) -> np.ndarray:
    content = np.load(path, mmap_mode="r", allow_pickle=False)  # an .npz is compressed and is never mapped
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


def _idx(path: Path) -> np.ndarray:
    """The format of MNIST: 0, 0, type, number of dimensions; their sizes; the values; all big-endian."""
    raw: Any = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
    if path.suffix == ".gz":
        raw = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8)
    if len(raw) < 4 or raw[0] or raw[1] or raw[2] not in _IDX_TYPES or len(raw) < 4 + 4 * raw[3]:
        raise InputError(f"`data` {path} is not an idx file: give {_KINDS}, or a folder of images")
    start = 4 + 4 * int(raw[3])
    shape = struct.unpack(f">{raw[3]}I", raw[4:start].tobytes())
    kind = np.dtype(_IDX_TYPES[int(raw[2])])
    count, rest = divmod(len(raw) - start, kind.itemsize)
    if count != math.prod(shape) or rest:
        raise InputError(f"`data` {path} says shape {shape} but holds {count} values: is it whole?")
    return raw[start:].view(kind).reshape(shape)
