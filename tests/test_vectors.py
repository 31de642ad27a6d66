"""Recorded calls that tools/check-wheels replays on other systems: every operation is recorded, and all agree here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from softdraw.kernels import native

TOOLS = Path(__file__).parent.parent / "tools"
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(native.library() is None, reason="the kernels are not compiled here"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is here"),
]


def test_the_library_repeats_what_was_recorded(tmp_path):
    vectors, program = tmp_path / "vectors", tmp_path / "replay"
    recorded = subprocess.run(
        [sys.executable, TOOLS / "record_vectors", vectors], capture_output=True, text=True, check=True
    )
    every = (*native.OPERATIONS, *native.PASSES, *native.OVER_BITS, *native.OF_SUBSETS, *native.OF_TILES)
    calls = int(recorded.stdout.split()[0])
    assert f"{calls} calls of {len(every)} operations" in recorded.stdout
    subprocess.run(["cc", "-O1", "-o", program, TOOLS / "replay_vectors.c", "-ldl", "-lm"], check=True)
    replayed = subprocess.run([program, vectors, native._path()], capture_output=True, text=True, check=False)
    assert replayed.returncode == 0, replayed.stdout
    assert f"{calls} of {calls} calls right" in replayed.stdout
    recording = bytearray(vectors.read_bytes())
    middle = len(recording) // 2
    recording[middle : middle + 4096] = bytes(b ^ 0x40 for b in recording[middle : middle + 4096])
    vectors.write_bytes(recording)  # a program that agrees with anything would be no check
    spoilt = subprocess.run([program, vectors, native._path()], capture_output=True, text=True, check=False)
    assert spoilt.returncode != 0
