"""What the numbers of a Subset cost as n and k grow: the work is O(nk) and the memory O(n log k).

    python benchmarks/subset_cost.py [--items 1000,10000,100000] [--chosen 10,100,1000] [--rounds 15]

One row of standard normal logits, float32, one thread, processor time, which can be trusted while other programs run.
A call is log-normalizer, mean, exact sample and covariance product together. The columns per nk show what "linear in
nk" means: where they stay the same or fall, the cost grows no faster than nk. Peak memory is that of a process of its
own in its second call, beyond what the call returns; the first is a small one, which loads what is loaded once.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time

import torch

from softdraw import Subset
from softdraw.bench.memory import extra_bytes
from softdraw.bench.timing import cpu_times


def call(x: torch.Tensor, k: int) -> tuple[torch.Tensor, ...]:
    """The four numbers of a law."""
    law = Subset(x, k)
    return law.log_normalizer(), law.mean, law.sample(seed=0), law.covariance_product(x)


def measure(n: int, k: int, rounds: int) -> tuple[float, int | None]:
    """Seconds of a call, and its peak memory."""
    torch.set_num_threads(1)
    x = torch.randn(n, generator=torch.Generator().manual_seed(n))
    call(x[:100], 5)
    peak = extra_bytes(lambda: call(x, k))
    return statistics.median(cpu_times({"": lambda: call(x, k)}, rounds, time.process_time)[""]), peak


def main() -> None:
    """Print a line for each n and k."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", default="1000,10000,100000", help="n, separated by commas")
    parser.add_argument(
        "--chosen", default="10,100,1000", help="k, separated by commas; those above n / 2 are left out"
    )
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    sizes = [(n, k) for n in map(int, given.items.split(",")) for k in map(int, given.chosen.split(",")) if 2 * k <= n]
    print("| n | k | ms | ns per nk | peak MB | peak bytes per nk |\n|---|---|---|---|---|---|")
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as processes:
        for n, k in sizes:
            seconds, peak = processes.apply(measure, (n, k, given.rounds))
            memory = "| |" if peak is None else f"{peak / 2**20:.1f} | {peak / (n * k):.1f} |"
            print(f"| {n:,} | {k:,} | {seconds * 1e3:.2f} | {seconds / (n * k) * 1e9:.2f} | {memory}", flush=True)


if __name__ == "__main__":
    main()
