"""The Triton kernels in Triton's interpreter, in a process of their own: it is chosen before Triton is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from softdraw import kernels


def test_the_kernels_equal_the_reference_in_the_interpreter():
    pytest.importorskip("triton", reason="the extra softdraw[triton] is not installed")
    here = Path(__file__).parent
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    # The interpreter computes with NumPy, which warns where NaN and infinity are meant.
    options = ["-p", "no:xdist", "-o", "addopts=", "-q", "-W", "ignore::RuntimeWarning"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(here / "test_triton.py")],
        env=environment,
        cwd=here.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_without_triton_a_gpu_draws_with_plain_torch_and_says_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "softdraw.kernels.triton", raising=False)
    monkeypatch.delattr(kernels, "triton", raising=False)
    assert kernels._triton.__wrapped__() == (None, "Triton is not installed: pip install 'softdraw[triton]'")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_where_triton_cannot_run_plain_torch_does():
    device = torch.device("cuda")
    assert kernels.body(device) is kernels.reference
    assert kernels.reason(device).startswith("plain torch: ")
