"""A folder of image files as one array: grey or in colour, all of one size. Pillow reads them, which matplotlib
installs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from softdraw.errors import InputError

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
_GREY = {"1", "L", "LA", "I", "I;16", "I;16B"}
_DEEP = {"I", "I;16", "I;16B"}  # 16 bits a pixel; Pillow opens some of them as 32-bit integers
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # the EXIF tag, and its values for pictures that lie on their side


def read_folder(path: Path) -> np.ndarray:
    """The images under ``path`` in the order of their paths, in values from 0 to 255.

    Returns:
        ``(N, H, W)`` where all are grey, however they were saved, else ``(N, H, W, 3)``: red, green and blue.

    Raises:
        InputError: there are none, one cannot be read, or they differ in size.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise InputError(f"`data` {path}: image files need Pillow: pip install 'softdraw[cli]'") from None
    inside = (file.relative_to(path) for file in sorted(path.rglob("*")))
    files = [f for f in inside if f.suffix.lower() in _SUFFIXES and not any(part[0] == "." for part in f.parts)]
    if not files:
        raise InputError(f"`data` {path} holds no image files: give a folder of PNG, JPEG, ... files")
    modes, sizes = set(), []
    for file in files:  # the headers first: whether one is in colour decides the shape of all
        mode, size = _opened(path / file, lambda image: (image.mode, _size(image)))
        if sizes and size != sizes[0]:
            a, b = (f"{name} is {width}x{height}" for name, (width, height) in ((files[0], sizes[0]), (file, size)))
            raise InputError(f"`data` {path} has images of different sizes: {a}, {b} pixels: bring them to one size")
        modes.add(mode)
        sizes.append(size)
    width, height = sizes[0]
    grey = modes <= _GREY
    shape = (len(files), height, width) if grey else (len(files), height, width, 3)
    images = np.empty(shape, np.float32 if modes & _DEEP else np.uint8)
    for i, file in enumerate(files):
        images[i] = _opened(path / file, lambda image: _values(image, Image, grey))
    if not grey and (images == images[..., :1]).all():
        return images[..., 0]
    return images


def _opened(path: Path, look: Any) -> Any:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return look(image)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # each format has its own errors for a broken file
        text = str(error).partition("\n")[0][:120]
        raise InputError(f"`data` {path} cannot be read as an image ({text}): is it whole?") from None


def _size(image: Any) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if image.getexif().get(_ORIENTATION) in _TURNED else (width, height)


def _values(image: Any, pil: Any, grey: bool) -> np.ndarray:
    """``(H, W)`` or ``(H, W, 3)`` from 0 to 255; what is transparent is shown on white."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode in _DEEP:
        values = np.asarray(image).astype(np.float32) / 257  # 65535 = 257 * 255
        return values if grey else np.repeat(values[..., None], 3, axis=-1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = pil.alpha_composite(pil.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("L" if grey else "RGB"))
