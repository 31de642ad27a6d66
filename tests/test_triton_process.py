"""The Triton kernels in Triton's interpreter, in a process of their own: it is chosen before Triton is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from softdraw import kernels


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param(("", "_corners", "_indices"), id="draws", marks=pytest.mark.long),
        pytest.param(("_rules",), id="rules", marks=pytest.mark.long),
        pytest.param(("_passes", "_bit_passes", "_usage_passes"), id="passes", marks=pytest.mark.long),
    ],
)
def test_the_kernels_equal_the_reference_in_the_interpreter(parts):
    _need_triton()
    here = Path(__file__).parent
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    # The interpreter computes with NumPy, which warns where NaN and infinity are meant.
    options = ["-p", "no:xdist", "-o", "addopts=", "-q", "-W", "ignore::RuntimeWarning"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *(str(here / f"test_triton{part}.py") for part in parts)],
        env=environment,
        cwd=here.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def _need_triton() -> None:
    pytest.importorskip("softdraw.kernels.triton", reason="needs Triton 3.3 or newer", exc_type=ImportError)


def test_without_triton_a_gpu_draws_with_plain_torch_and_says_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "softdraw.kernels.triton", raising=False)
    monkeypatch.delattr(kernels, "triton", raising=False)
    assert kernels._triton() == (None, "Triton is not installed: pip install 'softdraw[triton]'")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_where_triton_cannot_run_plain_torch_does():
    device = torch.device("cuda")
    assert kernels.body(device) is kernels.reference
    assert kernels.reason(device).startswith("plain torch: ")
    assert kernels.body(device, torch.bfloat16) is kernels.reference


def test_a_capture_before_the_check_draws_with_plain_torch_and_settles_nothing(monkeypatch):
    """Checking the kernels waits for the device, which ends a capture; after either, Triton is picked."""
    device, capturing, asked = torch.device("cuda"), [True], []
    monkeypatch.setattr(kernels, "disagreement", lambda *question: asked.append(question))
    monkeypatch.setattr(kernels, "_triton", lambda: ("the Triton body", ""))
    monkeypatch.setattr(kernels, "_agreed", set())
    monkeypatch.setattr(kernels, "_refused", {})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing[0])
    monkeypatch.setattr(kernels, "_picked", {})
    with pytest.warns(RuntimeWarning, match=r"first draw in torch.float32 .* Make one draw before the capture"):
        assert kernels.body(device) is kernels.reference
    assert asked == []
    capturing[0] = False
    assert kernels.body(device) == "the Triton body"
    capturing[0] = True
    assert kernels.body(device) == "the Triton body"
    assert kernels.body(torch.device("cuda:0")) == "the Triton body"  # the same kind of device: not asked again
    assert asked == [("the Triton body", device, torch.float32)]
    with pytest.warns(RuntimeWarning, match="first draw in torch.float64"):
        assert kernels.body(device, torch.float64) is kernels.reference


def test_an_old_triton_is_named(monkeypatch):
    _need_triton()
    monkeypatch.setattr(sys.modules["triton"], "__version__", "3.2.0")
    for name in [name for name in sys.modules if name.startswith("softdraw.kernels.triton")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(kernels, "triton", raising=False)
    body, why = kernels._triton()
    assert body is None
    assert "Triton 3.2.0 is too old" in why
