"""Inputs that the compiled kernels and the plain-torch reference must agree on; also run under the sanitizers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from softdraw.arguments import Draw

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SPECIAL = (math.nan, math.inf, -math.inf, 3e38, -3e38, 1e-40, 0.0)


@dataclass
class Case:
    """The arguments of a draw as a kernel body takes them, and a gradient that arrives at it."""

    logits: Tensor
    tau: Tensor | float
    seed: Tensor
    rows: Tensor | None
    mask: Tensor | None
    grad: Tensor
    col_start: int

    @property
    def draw(self) -> Draw:
        return Draw(self.logits, self.tau, self.seed, self.rows, self.mask, self.col_start)

    def index(self, samples: int) -> tuple[Draw, int]:
        return self.draw, samples


def _strided(x: Tensor, layout: str) -> Tensor:
    """The values of ``x`` in another layout."""
    if layout == "transposed" and x.dim() > 1:
        return x.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == "spread":
        wide = torch.full((*x.shape[:-1], 2 * x.shape[-1]), math.nan, dtype=torch.float64).to(x.dtype)
        wide[..., 1::2] = x
        return wide[..., 1::2]
    if layout == "expanded" and x.dim() > 1:
        return x[:1].expand(x.shape)
    return x


def make(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    layout: str,
    masked: str,
    special: bool,
    tau: str,
    rows: str,
    col_start: int,
    key: int,
) -> Case:
    """A case from its description; ``key`` decides the numbers."""
    g = torch.Generator().manual_seed(key)
    x = 3 * torch.randn(shape, generator=g, dtype=torch.float64)
    if special and x.numel():
        where = torch.rand(shape, generator=g) < 0.1
        values = torch.tensor(SPECIAL, dtype=torch.float64)
        x = torch.where(where, values[torch.randint(len(SPECIAL), shape, generator=g)], x)
    batch = shape[:-1]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    mask = {
        "none": None,
        "full": torch.rand(shape, generator=g) > 0.4,
        "shared": (torch.rand(shape[-1:], generator=g) > 0.4).expand(shape),
        "rows": (torch.rand((*batch, 1), generator=g) > 0.4).expand(shape),
    }[masked]
    taus = {"number": 0.7, "tensor": torch.tensor(0.3, dtype=wide), "rows": torch.rand((*batch, 1), generator=g) + 0.1}
    ids = torch.randint(2**62, (*batch, 1), generator=g) if rows == "ids" else None
    return Case(
        logits=_strided(x.to(dtype), layout),
        tau=taus[tau],
        seed=torch.tensor(key * 0x9E3779B97F4A7C15 % 2**63),
        rows=ids,
        mask=mask,
        grad=_strided(torch.randn(shape, generator=g, dtype=torch.float64).to(dtype), layout),
        col_start=col_start,
    )


SHAPES = st.one_of(
    st.tuples(st.integers(1, 70)),
    st.tuples(st.integers(0, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 35)),
    st.tuples(st.integers(1, 40), st.sampled_from((48, 63, 64, 65, 96, 100, 255, 256, 257))),
    st.tuples(st.integers(1, 3), st.sampled_from((1023, 1024, 1025, 2064, 5000))),
)


def cases(shapes: st.SearchStrategy) -> st.SearchStrategy:
    """Cases of these shapes, with every value of every other property."""
    return st.builds(
        make,
        shape=shapes,
        dtype=st.sampled_from(DTYPES),
        layout=st.sampled_from(("plain", "transposed", "spread", "expanded")),
        masked=st.sampled_from(("none", "full", "shared", "rows")),
        special=st.booleans(),
        tau=st.sampled_from(("number", "tensor", "rows")),
        rows=st.sampled_from(("counted", "ids")),
        col_start=st.sampled_from((0, 0, 0, 1, 4, 6, 2**31 + 3, 2**32 - 5000)),
        key=st.integers(0, 2**40),
    )


CASES = cases(SHAPES)
