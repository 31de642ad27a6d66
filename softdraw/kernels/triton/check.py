"""Whether the kernels agree with plain torch on the device that is here: asked once, before they are first used."""

from __future__ import annotations

import torch

from softdraw.arguments import Draw
from softdraw.kernels import reference, triton

_SHAPES = ((4, 40), (3, 1000), (1, 20_000))  # narrow, whole and split rows
_TAU = 0.5
_TOLERANCE = 1e-4  # of fast logarithms, which tau magnifies


def disagreement(device: torch.device) -> str | None:
    """The first result that is not the reference's, in words; None when all are."""
    seed = torch.ones((), dtype=torch.int64, device=device)
    for rows, cols in _SHAPES:
        x = torch.linspace(-2, 2, rows * cols, device=device).view(rows, cols)
        mask = (torch.arange(cols, device=device) % 3 > 0).expand(rows, cols)
        draw = Draw(x, _TAU, seed, None, mask)
        y, grad = reference.soft(draw), x.flip(0, 1)
        calls = {
            "soft": (draw,),
            "hard": (draw,),
            "index": (draw, 2),
            "soft_backward": (y, grad, _TAU),
            "hard_backward": (draw, grad),
        }
        for name, arguments in calls.items():
            ours, theirs = (getattr(body, name)(*arguments).double() for body in (triton, reference))
            if not torch.allclose(ours, theirs, rtol=_TOLERANCE, atol=_TOLERANCE * float(theirs.abs().max())):
                return f"{name} of {rows}x{cols} differs from plain torch"
    return None
