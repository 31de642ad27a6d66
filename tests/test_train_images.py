"""What `softdraw train --data` reads: folders of images, colour, files larger than the memory."""

from __future__ import annotations

import gzip
import struct
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from softdraw.cli import run as softdraw
from softdraw.errors import InputError
from softdraw.recipes.autoencoder import data, files, pictures
from softdraw.recipes.autoencoder.data import load
from softdraw.recipes.autoencoder.files import read

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 4, 6), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (12, 4, 6, 3), dtype=np.uint8)


def folder(path, images, suffix=".png"):
    path.mkdir(exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(path / f"{i:02}{suffix}")
    return path


def in_order(source):
    """All pixels of ``source``, held out or not, in the order in which they were read."""
    images = load(str(source), 0.2, torch.Generator().manual_seed(0))
    both = torch.cat([images.valid, images.train])
    back = torch.randperm(len(both), generator=torch.Generator().manual_seed(0)).argsort()
    return both[back].numpy(), images.shape


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".pgm", ".PNG"])
def test_a_folder_of_grey_images(tmp_path, suffix):
    pixels, shape = in_order(folder(tmp_path / "images", GREY, suffix))
    assert shape == (4, 6)
    np.testing.assert_array_equal(pixels, GREY.reshape(12, 24).astype(np.float32) / GREY.max())


def test_a_folder_of_colour_images_is_like_its_array_in_either_order_of_channels(tmp_path):
    folder(tmp_path / "images", COLOUR)
    np.save(tmp_path / "last.npy", COLOUR)
    np.save(tmp_path / "first.npy", COLOUR.transpose(0, 3, 1, 2))
    wanted = COLOUR.reshape(12, 72).astype(np.float32) / COLOUR.max()
    prints = set()
    for name in ("images", "last.npy", "first.npy"):
        pixels, shape = in_order(tmp_path / name)
        assert shape == (4, 6, 3)
        np.testing.assert_array_equal(pixels, wanted)
        prints.add(load(str(tmp_path / name), 0.2, torch.Generator()).fingerprint)
    assert len(prints) == 1


def test_jpeg_is_what_pillow_decodes(tmp_path):
    smooth = np.linspace(0, 255, 12 * 64).reshape(12, 8, 8).astype(np.uint8)
    path = folder(tmp_path / "images", smooth, ".jpg")
    decoded = np.stack([np.asarray(Image.open(file)) for file in sorted(path.iterdir())])
    np.testing.assert_array_equal(in_order(path)[0], decoded.reshape(12, 64).astype(np.float32) / decoded.max())
    assert np.abs(decoded.astype(int) - smooth).max() <= 4


def test_one_channel_and_grey_saved_as_colour_are_grey(tmp_path):
    np.save(tmp_path / "one.npy", GREY[..., None])
    folder(tmp_path / "images", np.repeat(GREY[..., None], 3, axis=-1))
    for name in ("one.npy", "images"):
        pixels, shape = in_order(tmp_path / name)
        assert shape == (4, 6)
        np.testing.assert_array_equal(pixels, GREY.reshape(12, 24).astype(np.float32) / GREY.max())


def test_kinds_of_image_in_one_folder(tmp_path):
    """Paths decide the order; a grey image among coloured ones has three equal channels; 16 bits are 257 times 8; what
    is transparent is white; an image that lies on its side is turned; other files are passed over."""
    path = folder(tmp_path / "images", COLOUR)
    Image.fromarray(GREY[0]).save(path / "00.png")
    Image.fromarray(GREY[1].astype(np.uint16) * 257).save(path / "01.png")
    faint = np.dstack([COLOUR[2], np.zeros((4, 6), np.uint8)])
    faint[0, 0, 3] = 255
    Image.fromarray(faint).save(path / "02.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by a quarter, clockwise
    Image.fromarray(np.rot90(COLOUR[3])).save(path / "03.png", exif=turned)
    (path / "labels.csv").write_text("1,2,3")
    (path / ".hidden.png").write_bytes(b"not an image")
    (path / "zz").mkdir()
    (path / "11.png").rename(path / "zz" / "00.png")
    wanted = COLOUR.astype(np.float32)
    wanted[0], wanted[1] = GREY[0][..., None], GREY[1][..., None]
    wanted[2] = 255
    wanted[2, 0, 0] = COLOUR[2, 0, 0]
    pixels, shape = in_order(path)
    assert shape == (4, 6, 3)
    np.testing.assert_allclose(pixels, wanted.reshape(12, 72) / 255, rtol=1e-6)


def refused(capsys, *arguments):
    assert softdraw(["train", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("softdraw: --data ")
    assert printed.err.count("\n") == 1
    return printed.err


def test_bad_folders(capsys, tmp_path):
    path = folder(tmp_path / "images", GREY)
    Image.fromarray(GREY[0][:, :5]).save(path / "07.png")
    said = refused(capsys, "--data", path, "--out", tmp_path / "run")
    assert "different sizes: 00.png is 6x4, 07.png is 5x4 pixels: bring them to one size" in said
    (path / "07.png").write_bytes((path / "06.png").read_bytes()[:60])
    assert "07.png cannot be read as an image" in refused(capsys, "--data", path, "--out", tmp_path / "run")
    (tmp_path / "none").mkdir()
    assert "holds no image files" in refused(capsys, "--data", tmp_path / "none", "--out", tmp_path / "run")
    few = folder(tmp_path / "few", GREY[:3])
    assert "holds 3 images: at least 10" in refused(capsys, "--data", few, "--out", tmp_path / "run")
    np.save(tmp_path / "four.npy", np.zeros((12, 4, 6, 4)))
    said = refused(capsys, "--data", tmp_path / "four.npy", "--out", tmp_path / "run")
    assert "has shape (12, 4, 6, 4): images must be (N, H, W) or (N, D), or in colour (N, H, W, 3)" in said
    assert not (tmp_path / "run").exists()


def test_pictures_show_colour():
    """A red and a blue image beside each other: a red tile, a white line, a blue tile."""
    red, blue = torch.zeros(4, 4, 3), torch.zeros(4, 4, 3)
    red[..., 0], blue[..., 2] = 1, 1
    figure = pictures._tiles([torch.stack([red, blue]).flatten(1)], (4, 4, 3), "")
    shown = figure.axes[0].images[0].get_array()
    assert shown.shape == (4, 9, 3)
    assert (shown[:, :4] == [1, 0, 0]).all()
    assert (shown[:, 4] == 1).all()
    assert (shown[:, 5:] == [0, 0, 1]).all()


def test_colour_trains_and_says_so(tmp_path, capsys):
    path = folder(tmp_path / "photos", COLOUR)
    out = tmp_path / "run"
    assert softdraw(["train", "--data", str(path), "--out", str(out), "--epochs", "1", "--latents", "2x2"]) == 0
    assert "10 images of 4x6 in colour to train on, 2 held out" in capsys.readouterr().out
    for name in pictures.PICTURES:
        assert (out / name).read_bytes().startswith(b"\x89PNG")


# Memory


def test_what_may_stay_on_the_disk_stays_there(tmp_path):
    idx = struct.pack(">4B3I", 0, 0, 8, 3, *GREY.shape) + GREY.tobytes()
    np.save(tmp_path / "a.npy", GREY)
    (tmp_path / "a-idx3-ubyte").write_bytes(idx)
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx))
    for name, mapped in (("a.npy", True), ("a-idx3-ubyte", True), ("a.gz", False)):
        raw = read(str(tmp_path / name))
        assert isinstance(raw, np.memmap) == mapped
        np.testing.assert_array_equal(raw, GREY)


def test_a_file_takes_the_memory_of_its_pixels_and_little_more(tmp_path):
    """40 MB of float64 as 20 MB of float32, and 16 MB for each of two arrays of a part that is looked at."""
    np.save(tmp_path / "a.npy", RNG.uniform(0, 3, (5000, 1000)))
    tracemalloc.start()
    images = load(str(tmp_path / "a.npy"), 0.2, torch.Generator())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert images.train.shape == (4000, 1000)
    assert 20e6 <= peak < 20e6 + 2.2 * 4 * data._CHUNK


def test_chunks_change_nothing(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", RNG.uniform(0, 3, (50, 7, 3)))
    whole = load(str(tmp_path / "a.npy"), 0.2, torch.Generator().manual_seed(1))
    monkeypatch.setattr(data, "_CHUNK", 4 * 21)
    parts = load(str(tmp_path / "a.npy"), 0.2, torch.Generator().manual_seed(1))
    assert torch.equal(whole.train, parts.train)
    assert torch.equal(whole.valid, parts.valid)
    assert whole.fingerprint == parts.fingerprint
    bad = RNG.uniform(0, 3, (50, 21))
    bad[17, 3] = bad[30, 1] = bad[30, 2] = np.nan
    np.save(tmp_path / "bad.npy", bad)
    with pytest.raises(InputError, match="3 NaN or infinite pixels, the first in image 17"):
        load(str(tmp_path / "bad.npy"), 0.2, torch.Generator())


def test_images_that_do_not_fit_are_refused_before_they_are_read(capsys, tmp_path):
    """A file with a hole: 2**40 pixels of 8 bits, 4,096 GiB as float32."""
    with (tmp_path / "huge.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (2**20, 2**10, 2**10)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 2**40)
    said = refused(capsys, "--data", tmp_path / "huge.npy", "--out", tmp_path / "run")
    assert "does not fit in the memory: 1,048,576 images of 1,048,576 pixels take 4096.0 GiB as float32" in said
    assert "whole" not in said


def test_what_is_available_is_respected(monkeypatch, tmp_path):
    """12 images of 24 pixels take 1,152 bytes. The system grants memory that it does not have, so it is asked first."""
    np.save(tmp_path / "a.npy", GREY)
    monkeypatch.setattr(data, "_available", lambda: 1152)
    assert load(str(tmp_path / "a.npy"), 0.2, torch.Generator()).shape == (4, 6)
    monkeypatch.setattr(data, "_available", lambda: 1151)
    with pytest.raises(InputError, match=r"and 0.0 GiB are available: take fewer or smaller images"):
        load(str(tmp_path / "a.npy"), 0.2, torch.Generator())


@pytest.mark.parametrize("name", ["a.npz", "a.gz"])
def test_want_of_memory_while_reading_is_said(capsys, tmp_path, monkeypatch, name):
    def full(*arguments, **options):
        raise MemoryError("Unable to allocate 31.0 GiB")

    (tmp_path / name).write_bytes(b"x")
    monkeypatch.setattr(files.np, "load", full)
    monkeypatch.setattr(files.gzip, "decompress", full)
    said = refused(capsys, "--data", tmp_path / name, "--out", tmp_path / "run")
    assert "does not fit in the memory (Unable to allocate 31.0 GiB)" in said
