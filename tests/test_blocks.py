"""Blocks of the categories, as a rank that holds some of them has it: ``col_start`` gives each its part of the draw."""

from __future__ import annotations

import pytest
import torch

import softdraw

CUTS = [(0, 14), (14, 81), (81, 145), (145, 463), (463, 1500)]  # at every remainder by 4, in widths of every kind
LOGITS = 2 * torch.randn(50, 1500, generator=torch.Generator().manual_seed(0))
LOGITS[:, :145] += 3  # so that every block wins some row


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_block_of_a_soft_draw_is_its_part_of_the_whole(dtype):
    x = LOGITS.to(dtype)
    whole = softdraw.gumbel_softmax(x if dtype == torch.float64 else x.float(), 0.7, seed=3)
    for a, b in CUTS:
        part = softdraw.gumbel_softmax(x[:, a:b], 0.7, seed=3, col_start=a)
        expected = whole[:, a:b] / whole[:, a:b].sum(-1, keepdim=True)
        # Exponents of up to 40 are rounded, relative to another maximum in the part than in the whole.
        torch.testing.assert_close(part, expected.to(dtype), rtol=40 * torch.finfo(dtype).eps, atol=0)


def test_the_best_of_the_blocks_is_the_draw():
    """With the scores that the noise itself gives, as ranks that hold the categories between them would compare."""
    ids = torch.arange(100, 150)
    scores, places = [], []
    for a, b in CUTS:
        i = softdraw.gumbel_max(LOGITS[:, a:b], seed=3, rows=ids, col_start=a)
        s = LOGITS[:, a:b] + softdraw.gumbel_noise((50, b - a), seed=3, rows=ids, col_start=a)
        assert torch.equal(i, s.argmax(-1))
        one_hot = softdraw.gumbel_softmax(LOGITS[:, a:b], hard=True, seed=3, rows=ids, col_start=a)
        assert torch.equal(one_hot.argmax(-1), i)
        scores.append(s.amax(-1))
        places.append(a + i)
    best = torch.stack(scores).argmax(0)
    assert len(best.unique()) == len(CUTS)
    assert torch.equal(torch.stack(places).gather(0, best[None])[0], softdraw.gumbel_max(LOGITS, seed=3, rows=ids))


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("start", [5, 8])
def test_its_gradient_is_that_of_softmax_at_the_same_noise(hard, start):
    """Eager, compiled, mapped and differentiated twice."""
    x, w = LOGITS[:6, :10].double(), LOGITS[6:12, :10].double()
    noise = softdraw.gumbel_noise((6, 10), seed=3, col_start=start, dtype=torch.float64)

    def loss(x):
        return (softdraw.gumbel_softmax(x, 0.7, hard=hard, seed=3, col_start=start) * w).sum()

    def expected(x):
        return (((x + noise) / 0.7).softmax(-1) * w).sum()

    def grad(f, x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(f(x), x)[0]

    first = grad(expected, x)
    for got in (
        grad(loss, x),
        grad(torch.compile(loss, backend="aot_eager", fullgraph=True), x),
        torch.func.grad(loss)(x),
        torch.func.vmap(torch.func.grad(loss))(x.expand(2, 6, 10))[1],
    ):
        torch.testing.assert_close(got, first)
    twice = torch.autograd.functional.hvp(loss, x, w)[1]
    torch.testing.assert_close(twice, torch.autograd.functional.hvp(expected, x, w)[1])
