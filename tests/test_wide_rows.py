"""Rows so wide that several threads share one: they equal the reference, whichever part of a row something is in, and
no bit depends on the number of threads."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from processes import run
from torch import Tensor

from softdraw.arguments import Draw, KernelRule, compute_dtype
from softdraw.kernels import cpu, native, reference

pytestmark = pytest.mark.skipif(native.library() is None, reason="the kernels are not compiled here")
PART = 2**14  # columns of a part, kPart in csrc/wide.h
WIDTHS = (PART + 1, 2 * PART, 3 * PART + 37)
RULES = [KernelRule(name, gap=0.5, draws=2) for name in native.RULES]
SEED = torch.tensor(7)
TAU = 0.7


def logits(cols: int, dtype: torch.dtype = torch.float32, rows: int = 1) -> Tensor:
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(cols), dtype=torch.float64).to(dtype)


def results(draw: Draw, grad: Tensor, index: Tensor, body=cpu) -> dict[str, Tensor]:
    """What every operation makes of the draw."""
    x = draw.logits
    made = {
        "index": body.index(draw, 2),
        "gumbel": body.gumbel(
            SEED, torch.zeros(1, 1, dtype=torch.int64), x.shape[-1], 0, torch.tensor(1), compute_dtype(x.dtype)
        ),
        **{name: getattr(body, name)(draw) for name in ("soft", "hard")},
        "soft_backward": body.soft_backward(x.double().softmax(-1).to(x.dtype), grad, draw.tau),
        "hard_backward": body.hard_backward(draw, grad),
    }
    for rule in RULES:
        made[rule.name] = body.rule_backward(draw, grad, index, rule, False)
    return made


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("cols", WIDTHS)
def test_wide_rows_equal_the_reference(cols, masked, threads):
    """In float64 on two threads; the sample lies in one part of the row after the other."""
    threads(2)
    x, grad = logits(cols, torch.float64), logits(cols, torch.float64).flip(-1)
    mask = (torch.arange(cols) % 3 > 0).expand(1, cols) if masked else None
    for at in (1, PART - 1, PART, cols - 1):
        draw, index = Draw(x, TAU, SEED, None, mask), torch.tensor([at])  # PART - 1 is forbidden by the mask
        ours, theirs = results(draw, grad, index), results(draw, grad, index, reference)
        for name, exact in theirs.items():
            torch.testing.assert_close(ours[name], exact, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, WIDTHS[-1]), (1, 2**17 + 5), (3, 2**17)])
def test_no_bit_depends_on_the_number_of_threads(shape, dtype, threads):
    """From 2^17 columns on, threads are woken for one row; 3 rows are shared by 5 threads."""
    x, index = logits(shape[1], dtype, shape[0]), torch.arange(shape[0]) * 40_000 + 5
    made = {}
    for count in (1, 2, 5):
        threads(count)
        made[count] = results(Draw(x, TAU, SEED), x.flip(-1), index)
    for count in (2, 5):
        for name, expected in made[1].items():
            assert torch.equal(made[count][name], expected), (count, name)


def test_a_row_does_not_depend_on_the_rows_beside_it(threads):
    threads(2)
    x, index = logits(WIDTHS[-1], rows=4), torch.tensor([3, 20_000, 40_000, 49_000])
    together = results(Draw(x, TAU, SEED, torch.arange(4).view(4, 1)), x.flip(-1), index)
    for row in range(4):
        alone = results(
            Draw(x[row : row + 1], TAU, SEED, torch.tensor([[row]])), x[row : row + 1].flip(-1), index[row : row + 1]
        )
        for name, expected in alone.items():
            if name not in ("index", "gumbel"):
                assert torch.equal(together[name][row], expected[0]), name


@pytest.mark.parametrize("at", [0, PART - 1, PART, WIDTHS[-1] - 1])
def test_a_value_that_spoils_a_row_is_seen_in_every_part(at, threads):
    threads(2)
    for bad in (math.nan, math.inf):
        x = logits(WIDTHS[-1])
        x[0, at] = bad
        made = results(Draw(x, TAU, SEED), torch.ones_like(x), torch.tensor([-1]))
        for name in ("soft", "hard", "hard_backward", "zgr", "gapped", "gumbel_rao"):
            assert made[name].isnan().all(), name
        assert (made["index"] == -1).all()


def test_of_equal_scores_the_first_column_wins_across_parts(threads):
    threads(2)
    x = torch.full((1, WIDTHS[-1]), -math.inf)
    x[0, [PART + 3, 2 * PART + 1]] = 0.0
    assert cpu.index(Draw(x, 1.0, None), 1).item() == PART + 3
    assert cpu.hard(Draw(torch.full_like(x, -math.inf), 1.0, SEED)).abs().sum() == 0


BUSY = """
import os, torch, softdraw
torch.set_num_threads(2)
x = torch.randn(1, 2**20, requires_grad=True)
def others():
    return sum(sum(map(int, open(f"/proc/self/task/{t}/stat").read().rsplit(")", 1)[1].split()[11:13]))
               for t in os.listdir("/proc/self/task") if int(t) != os.getpid())
softdraw.draw(x, softdraw.ZGR(), seed=0)
for f in (lambda: softdraw.gumbel_softmax(x.detach(), seed=1),
          lambda: torch.autograd.grad(y, x, g, retain_graph=True)):
    y = softdraw.draw(x, softdraw.ZGR(), seed=0)
    g = torch.empty_like(y).fill_(0.5)
    before = others()
    for _ in range(20_000):  # the other CPU may be busy for seconds
        f()
        if others() > before + 3:  # hundredths of a second
            break
    assert others() > before + 3
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the time of threads from /proc")
def test_two_threads_share_one_row():
    """Without torch's own threads, a second thread works on the draw and on the gradient of a single row."""
    run(BUSY, SOFTDRAW_OPENMP="0")
