"""How often a draw differs between two ways of computing it: another instruction set, plain torch, float64.

    python benchmarks/near_ties.py            6 minutes on two cores
    python benchmarks/near_ties.py 0.01       a hundredth of the rows

The noise words are equal everywhere. Each way rounds the noise differently, so the index can differ in a row whose two
highest scores are nearly equal. The logits are standard normal numbers, new ones in each chunk. The indices of the
instruction sets are compared in every row. Plain torch and float64 draw only the rows whose two highest scores, in
float32, are less than NEAR apart, because noise that is rounded differently is much nearer than that. The float64 draw
takes its noise in float64 too, as it does for float64 logits.
"""

import sys

import torch

import softdraw
from softdraw.arguments import Draw
from softdraw.kernels import native, reference

# Categories, and rows in millions.
SHAPES = ((2, 200), (10, 100), (320, 3), (8192, 0.1))
NEAR = 1e-4
CHUNK = 2**22  # elements at once
SEED = 20


def near(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Which rows have their two highest scores less than NEAR apart."""
    scores = x + softdraw.gumbel_noise(x.shape, seed=SEED, rows=rows)
    best = scores.amax(-1, keepdim=True)
    return ((scores > best - NEAR).sum(-1) > 1).nonzero().squeeze(-1)


def counted(cols: int, rows: int, others: list[str]) -> dict[str, int]:
    """How many of the rows each way draws otherwise than the first instruction set does."""
    best, found = native.isa(), dict.fromkeys([*others, "plain torch", "float64"], 0)
    for first in range(0, rows, CHUNK // cols):
        ids = torch.arange(first, min(first + CHUNK // cols, rows))
        x = torch.randn(len(ids), cols, generator=torch.Generator().manual_seed(first))
        index = softdraw.gumbel_max(x, seed=SEED, rows=ids)
        for isa in others:
            native.use_isa(isa)
            found[isa] += int((softdraw.gumbel_max(x, seed=SEED, rows=ids) != index).sum())
        native.use_isa(best)
        at = near(x, ids)
        if not len(at):
            continue
        x, ids, index = x[at], ids[at], index[at]
        plain = reference.index(Draw(x, 1.0, torch.tensor(SEED), ids.unsqueeze(-1)), 1)[0]
        found["plain torch"] += int((plain != index).sum())
        found["float64"] += int((softdraw.gumbel_max(x.double(), seed=SEED, rows=ids) != index).sum())
    return found


def main(part: str = "1") -> None:
    best = native.isa()
    others = [isa for isa in ("x86-64-v2", "x86-64-v3", "x86-64-v4") if isa < best]
    print(
        f"| categories | rows | {' | '.join(f'{best} and {other}' for other in (*others, 'plain torch', 'float64'))} |"
    )
    print("|---" * (4 + len(others)) + "|")
    for cols, millions in SHAPES:
        rows = int(millions * 1e6 * float(part))
        found = counted(cols, rows, others)
        print(f"| {cols:,} | {rows:,} | {' | '.join(str(count) for count in found.values())} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
