"""The checks themselves: each calls the sampler and says in one line what it found."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from softdraw.conformance.statistics import chi_square, poisson
from softdraw.errors import counted

Sampler = Callable[[Tensor, int, Tensor], Tensor]
_LEVEL = 1e-4  # the significance of every statistical check
_DRAWS = 100_000
_RARE = 2**18  # categories of the tail
_HITS = 16.0  # what is expected of them in all: a tail that ends at 2^-24 gives one or two, and 3 or fewer are refused


@dataclass(frozen=True)
class Bench:
    """A sampler, and what it is called with."""

    sampler: Sampler
    seed: int
    device: torch.device
    tail: int

    def draw(self, logits: Tensor, rows: Tensor, seed: int = 0) -> Tensor:
        """Indices on the CPU, after a check of what came back; ``seed`` counts from the first one."""
        index: Any = self.sampler(logits.to(self.device), self.seed + seed, rows.to(self.device))
        if not isinstance(index, Tensor):
            raise TypeError(f"it returned {type(index).__name__}, expected a tensor of integers")
        if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
            raise TypeError(f"it returned a tensor of {index.dtype}, expected integers")
        if index.shape != logits.shape[:1]:
            raise ValueError(f"it returned the shape {tuple(index.shape)} for {len(logits)} rows")
        return index.long().cpu()

    def batch(self, rows: int = 64, categories: int = 50) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, ids in no order, and the draw of them."""
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(rows, categories, generator=generator, device="cpu")
        ids = torch.randperm(10 * rows, generator=generator, device="cpu")[:rows]
        return x, ids, self.draw(x, ids)


def _output(bench: Bench) -> tuple[bool, str]:
    x, _, index = bench.batch()
    wrong = int(((index < 0) | (index >= x.shape[-1])).sum())
    return wrong == 0, f"{wrong} of {len(x)} indices are outside of the {x.shape[-1]} categories"


def _law(bench: Bench) -> tuple[bool, str]:
    x = torch.linspace(-3, 3, 12, device="cpu")
    index = bench.draw(x.expand(_DRAWS, 12), torch.arange(_DRAWS, device="cpu"))
    p = chi_square(torch.bincount(index, minlength=12), x.double().softmax(-1))
    return p >= _LEVEL, f"{_DRAWS} draws of 12 categories have chi-square p = {p:.2g}"


def _tail(bench: Bench) -> tuple[bool, str]:
    """One likely category and many rare ones, of which ``_HITS`` are expected in all. Every call has ids and a seed of
    its own: another check tests how noise is keyed."""
    rows = 32
    calls = math.ceil(bench.tail / (rows * _RARE))
    values = calls * rows * _RARE
    each = _HITS / values
    x = torch.full((rows, _RARE + 1), math.log(each / (1 - _RARE * each)), device="cpu")
    x[:, 0] = 0
    hits = sum(int((bench.draw(x, torch.arange(rows, device="cpu") + rows * i, i) > 0).sum()) for i in range(calls))
    p = poisson(hits, _HITS)
    return p >= _LEVEL, (
        f"{counted(hits, 'draw')} of categories of probability 2^{math.log2(each):.1f}, where {_HITS:.0f} are expected "
        f"(Poisson p = {p:.2g})" + (": the noise ends too early" if p < _LEVEL and hits < _HITS else "")
    )


def _same(index: Tensor, other: Tensor, what: str) -> tuple[bool, str]:
    changed = int((index != other).sum())
    return changed == 0, f"{changed} of {len(index)} rows drew another index {what}"


def _repeat(bench: Bench) -> tuple[bool, str]:
    x, ids, index = bench.batch()
    return _same(index, bench.draw(x, ids), "when the same call was made again")


def _ids(bench: Bench) -> tuple[bool, str]:
    x, ids, index = bench.batch()
    twice = bench.draw(x.repeat(2, 1), ids.repeat(2))
    return _same(index.repeat(2), twice, "where the batch held their id and logits twice")


def _order(bench: Bench) -> tuple[bool, str]:
    x, ids, index = bench.batch()
    back = torch.arange(len(x) - 1, -1, -1, device="cpu")
    return _same(index[back], bench.draw(x[back], ids[back]), "when the batch was put in another order")


def _size(bench: Bench) -> tuple[bool, str]:
    x, ids, index = bench.batch()
    alone = torch.cat([bench.draw(x[i : i + 1], ids[i : i + 1]) for i in range(len(x))])
    return _same(index, alone, "when they were drawn alone")


def _parts(bench: Bench) -> tuple[bool, str]:
    x, ids, index = bench.batch()
    parts = [bench.draw(a, b) for a, b in zip(x.split((40, 23, 1)), ids.split((40, 23, 1)), strict=True)]
    return _same(index, torch.cat(parts), "when the batch was drawn in three parts, with their ids")


def _masks(bench: Bench) -> tuple[bool, str]:
    x = torch.linspace(-1, 1, 10, device="cpu").masked_fill(torch.arange(10, device="cpu") % 3 == 1, -math.inf)
    index = bench.draw(x.expand(_DRAWS, 10), torch.arange(_DRAWS, device="cpu"))
    forbidden = int((x[index] == -math.inf).sum())
    p = chi_square(torch.bincount(index, minlength=10), x.double().softmax(-1))
    single = torch.full((64, 7), -math.inf, device="cpu")
    single[:, 3] = -20
    others = int((bench.draw(single, torch.arange(64, device="cpu")) != 3).sum())
    said = (
        f"{forbidden} of {_DRAWS} draws are of categories at -inf, {others} of 64 of others than the only one allowed"
    )
    return p >= _LEVEL and not others, f"{said}; chi-square p = {p:.2g}"


def _independence(bench: Bench) -> tuple[bool, str]:
    """Pairs of draws with nothing in common but their logits have the product of the two laws, whatever these are."""
    x, n = torch.tensor([0.5, 0.0, -0.5, 0.2], device="cpu"), _DRAWS
    ids = torch.arange(n, device="cpu")
    logits, index = x.expand(n, 4), bench.draw(x.expand(n, 4), ids)
    pairs = {
        "neighbouring ids": (index[::2], index[1::2]),
        "ids 2^32 apart": (index, bench.draw(logits, ids + 2**32)),
        "seeds 1 apart": (index, bench.draw(logits, ids, 1)),
        "seeds 2^32 apart": (index, bench.draw(logits, ids, 2**32)),
    }
    found = {name: _dependence(a, b) for name, (a, b) in pairs.items()}
    name, p = min(found.items(), key=lambda pair: pair[1])
    return p >= _LEVEL, f"pairs of draws under other ids and seeds have chi-square p >= {p:.2g} (least: {name})"


def _dependence(a: Tensor, b: Tensor) -> float:
    first, second = (torch.bincount(x, minlength=4).double() / len(x) for x in (a, b))
    return chi_square(torch.bincount(4 * a + b, minlength=16), torch.outer(first, second), fitted=6)


TRIALS: dict[str, Callable[[Bench], tuple[bool, str]]] = {
    "output": _output,
    "law": _law,
    "tail": _tail,
    "repeat": _repeat,
    "ids": _ids,
    "order": _order,
    "size": _size,
    "parts": _parts,
    "masks": _masks,
    "independence": _independence,
}
