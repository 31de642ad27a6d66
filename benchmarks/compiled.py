"""What torch.compile costs: every rule, law and loss compiled with ``fullgraph=True``, beside the same call in eager
code.

    python benchmarks/compiled.py [--size 8192x128] [--lines ZGR,entropy] [--clock processor]

Forward and backward, float32. Both take turns in one process. A figure is the median over the rounds of the ratio of
the compiled time to the eager time within a round. The goal is at most 1.2. ``--clock processor`` counts the time of
the processor in place of that of the wall, with one thread: it can be trusted while other programs run. The line
``exp`` is torch's own exp: what it takes longer than in eager code is the cost of torch.compile itself.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from softdraw.bench.contestants import GROUPS, LINES
from softdraw.bench.line import Gradient

GOAL = 1.2


def pair(line: str, rows: int, cols: int, dtype: torch.dtype) -> tuple[Gradient, Gradient]:
    """The call of a line in eager code, and compiled for this very shape."""
    x = torch.randn(rows, cols, generator=torch.Generator().manual_seed(0)).to(dtype)
    eager = Gradient(torch.exp, x) if line == "exp" else LINES[line].ways(x)["softdraw"]
    assert isinstance(eager, Gradient)
    torch.compiler.reset()
    backend = "aot_eager" if line == "exp" else "inductor"  # the same loop as in eager code
    f = torch.compile(eager.f, fullgraph=True, dynamic=False, backend=backend)
    compiled = Gradient(f, *eager.leaves, others=eager.inputs[len(eager.leaves) :])
    for _ in range(2):
        compiled()
    return eager, compiled


def ratio(eager: Gradient, compiled: Gradient, rounds: int, clock: Callable[[], float]) -> tuple[float, float, float]:
    """Seconds of both, and the median of the ratio."""
    eager()
    shortest = min(_time(eager, 1, clock) for _ in range(3))
    loops = max(1, int(2e-2 / max(shortest, 1e-6)))
    times: list[tuple[float, float]] = []
    for i in range(rounds):
        first, second = (eager, compiled) if i % 2 else (compiled, eager)
        a, b = _time(first, loops, clock), _time(second, loops, clock)
        times.append((a, b) if i % 2 else (b, a))
    return (
        statistics.median(t for t, _ in times),
        statistics.median(t for _, t in times),
        statistics.median(theirs / mine for mine, theirs in times),
    )


def _time(call: Gradient, loops: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(loops):
        call()
    return (clock() - start) / loops


def main() -> None:
    """Print a line of the table for each line of the benchmark."""
    names = ["exp"] + [name for group in ("rules", "laws", "losses") for name in GROUPS[group]]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="8192x128", help="rows x categories")
    parser.add_argument("--lines", default=",".join(names), help="some of the lines, separated by commas")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall")
    given = parser.parse_args()
    rows, cols = map(int, given.size.split("x"))
    if given.clock == "processor":
        torch.set_num_threads(1)
    clock = time.perf_counter if given.clock == "wall" else time.process_time
    print(f"| line | eager, ns an element | compiled | compiled / eager |\n|---|---|---|---|  ({torch.__version__})")
    for name in given.lines.split(","):
        calls = pair(name, rows, cols, getattr(torch, given.dtype))
        eager, compiled, over = ratio(*calls, given.rounds, clock)
        each = 1e9 / (rows * cols)
        late = "" if over <= GOAL else " (over the goal)"
        print(f"| {name} | {eager * each:.2f} | {compiled * each:.2f} | {over:.2f}{late} |", flush=True)


if __name__ == "__main__":
    main()
