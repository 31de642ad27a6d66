"""Where the time of a small draw of bits goes, forward and backward, beside straight-through by hand.

    taskset -c 1 python benchmarks/small_bits.py

Every line is timed by itself: microseconds of the processor, the least of many short rounds in which the lines take
turns. What a call costs among others is more than what it costs alone, so the parts do not sum to the whole.
"""

from __future__ import annotations

import time

import torch

from softdraw import Bernoulli, StraightThrough, draw
from softdraw.arguments import KernelRule
from softdraw.bench.rules import bits_straight_through
from softdraw.kernels import cpu
from softdraw.private_torch import quick_apply
from softdraw.seeds import keep_spare, spare_seed

CALLS, ROUNDS = 100, 200


class Empty(torch.autograd.Function):
    """A node in Python that keeps two tensors and computes nothing."""

    @staticmethod
    def forward(ctx, x, rest):
        y = torch.empty_like(x)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx, *grads):
        return torch.empty_like(ctx.saved_tensors[0]), None


def lines(rows, cols):
    """The calls by name."""
    x, slope, g = torch.randn(rows, cols).requires_grad_(), torch.rand(rows, cols), torch.randn(rows, cols)
    theta, seed, rule = x.detach(), torch.tensor(3), StraightThrough()
    kernel, b, grad = KernelRule("straight_through"), torch.bernoulli(slope), torch.autograd.grad
    law, node = Bernoulli(x), quick_apply(Empty, Empty.backward)

    def hooked():
        y = x * slope
        y.grad_fn.register_hook(lambda *_: None)
        return y

    return {
        "by hand": lambda: grad(bits_straight_through(x), x, g),
        "draw(Bernoulli(x), rule)": lambda: grad(draw(Bernoulli(x), rule), x, g),
        "the law": lambda: Bernoulli(x),
        "draw(law, rule), forward": lambda: draw(law, rule),
        "the seed": lambda: keep_spare(spare_seed()),
        "the draw in C++": lambda: cpu.bits((theta, 1.0, seed, None, None, 0), None),
        "the gradient in C++": lambda: cpu.bits_backward((theta, 1.0, None, None, None, 0), g, b, kernel, False),
        "a result's memory": lambda: torch.empty_like(theta),
        "an empty node in Python": lambda: grad(node(x, ()), x, g),
        "a clone, torch's node": lambda: grad(x.clone(), x, g),
        "a product, torch's node": lambda: grad(x * slope, x, g),
        "a product with a hook": lambda: grad(hooked(), x, g),
    }


def main():
    """Print the table for 32x10."""
    torch.set_num_threads(1)
    calls = lines(32, 10)
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.process_time()
            for _ in range(CALLS):
                call()
            least[name] = min(least[name], (time.process_time() - start) / CALLS)
    for name, seconds in least.items():
        print(f"| {name} | {seconds * 1e6:.1f} |")


if __name__ == "__main__":
    main()
