"""What the doctor's cases are written with.

``fixed=None``: found, and not rewritten. ``same=True``: the snippet defines ``f(x, y)``, and both versions are run on
random float64 tensors (x: logits (5, 3), y: targets (5, 3) in [0, 1]) and must agree in value and gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

IMPORTS = "import torch\nfrom torch import nn\nimport torch.nn.functional as F\nDTYPE = torch.float64\n"


@dataclass(frozen=True)
class Case:
    code: str
    bad: str
    fixed: str | None = None
    unsafe: bool = False
    same: bool = False


def function(body: str, imports: str = IMPORTS) -> str:
    return imports + "def f(x, y):\n" + "".join(f"    {line}\n" for line in body.split("\n"))


def pair(code: str, bad: str, fixed: str | None, *, unsafe: bool = False, same: bool = False) -> Case:
    return Case(code, function(bad), None if fixed is None else function(fixed), unsafe, same)
