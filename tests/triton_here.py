"""Where the Triton kernels are tested: in Triton's interpreter on the CPU, or compiled on a GPU."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import Tensor

from softdraw.arguments import Draw

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
marks = [
    pytest.mark.gpu,
    pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="no CUDA device is here"),
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning"),
]
body: Any = None
if INTERPRETED or torch.cuda.is_available():
    body = pytest.importorskip("softdraw.kernels.triton")

DEVICE = "cpu" if INTERPRETED else "cuda"
MARGIN = 8  # ulp of max(|G|, 1), and of the largest argument of an exponential: the GPU's log2 and exp2 are approximate
whole_and_split = pytest.mark.parametrize("split", [False, True])


@pytest.fixture
def cut(request):
    """Tiles as they are, or of so few columns that rows of some tens are split."""
    with pytest.MonkeyPatch.context() as patch:
        if request.getfixturevalue("split"):
            patch.setattr(body.layout, "_WHOLE", 32)
            patch.setattr(body.layout, "_SPLIT", 16)
            patch.setattr(body.layout, "PARTS", 4)
        yield


def run(name: str, *arguments) -> Any:
    """An operation of the Triton body on its device; tensors of the result are back on the CPU."""
    made = getattr(body, name)(*map(_there, arguments))
    return tuple(x.cpu() for x in made) if isinstance(made, tuple) else made.cpu()


def _there(x: Any) -> Any:
    return Draw(*map(_there, x)) if isinstance(x, Draw) else x.to(DEVICE) if isinstance(x, Tensor) else x
