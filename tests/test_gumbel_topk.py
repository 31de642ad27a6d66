"""gumbel_topk draws without replacement, in the order and with the law of Plackett and Luce."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from leaves import make
from scipy.stats import chisquare

import softdraw

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def plackett_luce(p):
    """The probability of every ordered pair."""
    return {(i, j): p[i] * p[j] / (1 - p[i]) for i, j in itertools.permutations(range(len(p)), 2)}


@pytest.mark.parametrize("t", [1.0, 0.5, 3.0])
def test_the_law_of_ordered_pairs(t):
    logits = torch.tensor([1.0, -1.0, 0.0, 1.5])
    drawn = softdraw.gumbel_topk(logits, 2, temperature=t, sample_shape=(100_000,), seed=1)
    want = plackett_luce((logits.double() / t).softmax(-1).tolist())
    counts = (drawn[:, 0] * 4 + drawn[:, 1]).bincount(minlength=16)
    assert counts.sum() == sum(counts[4 * i + j] for i, j in want)  # no index twice
    assert chisquare([int(counts[4 * i + j]) for i, j in want], [100_000 * p for p in want.values()]).pvalue > 1e-3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(30, 7), (4, 300), (2, 3, 2500), (9,), (0, 5)])
def test_it_is_the_order_of_the_scores(shape, dtype):
    logits, mask = make(shape, dtype), make(shape, seed=1) > -1
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    noise = softdraw.gumbel_noise(shape, seed=3, dtype=wide)
    s = (logits.to(wide) + 0.7 * noise).masked_fill(~mask, -math.inf)
    order = s.argsort(dim=-1, descending=True, stable=True).masked_fill(
        s.sort(dim=-1, descending=True).values.isinf(), -1
    )
    for k in (0, 1, 4, 12):
        got = softdraw.gumbel_topk(logits, k, temperature=0.7, mask=mask, seed=3)
        assert got.shape == (*shape[:-1], k)
        want = torch.nn.functional.pad(order[..., :k], (0, max(0, k - shape[-1])), value=-1)
        assert torch.equal(got, want)
    one = softdraw.gumbel_topk(logits, 1, mask=mask, seed=3).squeeze(-1)
    assert torch.equal(one, softdraw.draw_index(logits, mask=mask, seed=3).index)


def test_dim_and_samples():
    logits = make((5, 12, 3))
    got = softdraw.gumbel_topk(logits, 4, dim=1, sample_shape=(2, 2), seed=1)
    want = softdraw.gumbel_topk(logits.movedim(1, -1), 4, sample_shape=(4,), seed=1)
    assert torch.equal(got.flatten(0, 1), want)
    assert torch.equal(want[0], softdraw.gumbel_topk(logits.movedim(1, -1), 4, seed=1))
    assert not torch.equal(want[0], want[1])


def test_k_of_each_row_is_a_beginning_of_the_largest():
    logits, k = make((4, 3, 10)), torch.tensor([[0, 1, 2], [3, 4, 5], [10, 11, 2], [1, 1, 1]])
    got = softdraw.gumbel_topk(logits, k, seed=2)
    whole = softdraw.gumbel_topk(logits, 11, seed=2)
    assert got.shape == (4, 3, 11)
    for i, j in itertools.product(range(4), range(3)):
        n = int(k[i, j])
        assert torch.equal(got[i, j, :n], whole[i, j, :n])
        assert (got[i, j, n:] == -1).all()
    assert (whole[..., 10] == -1).all()
    assert torch.equal(whole[..., :10].sort(-1).values, torch.arange(10).expand(4, 3, 10))
    assert softdraw.gumbel_topk(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64), seed=0).shape == (0, 0)


def test_rows_end_where_no_more_is_allowed():
    logits, mask = make((3, 6)), torch.tensor([[1, 0, 0, 1, 0, 0], [0] * 6, [1] * 6]).bool()
    logits[2, 4] = math.nan
    got = softdraw.gumbel_topk(logits, 4, mask=mask, seed=0)
    assert sorted(got[0].tolist()) == [-1, -1, 0, 3]
    assert got[0, 2:].tolist() == [-1, -1]
    assert (got[1:] == -1).all()


def test_temperature_0_is_a_stable_sort():
    logits = make((20, 50)).round()
    got = softdraw.gumbel_topk(logits, 50, temperature=0, seed=1)
    assert torch.equal(got, logits.argsort(dim=-1, descending=True, stable=True))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_and_mapped(backend):
    torch._dynamo.reset()
    logits = make((4, 3, 20))

    def draw(x):
        return softdraw.gumbel_topk(x, 5, temperature=0.5, seed=1)

    assert torch.equal(torch.compile(draw, fullgraph=True, backend=backend)(logits), draw(logits))
    assert torch.equal(torch.func.vmap(draw)(logits), torch.stack([draw(x) for x in logits]))
    t = torch.tensor([0.5, 1.0, 0.0, 2.0])
    got = torch.func.vmap(lambda x, t: softdraw.gumbel_topk(x, 5, temperature=t, seed=1))(logits, t)
    want = [softdraw.gumbel_topk(x, 5, temperature=float(u), seed=1) for x, u in zip(logits, t, strict=True)]
    assert torch.equal(got, torch.stack(want))


def test_rows_key_the_draw():
    logits, ids, order = make((8, 30)), torch.arange(100, 108), torch.tensor([5, 1, 7, 0])
    whole = softdraw.gumbel_topk(logits, 6, seed=2, rows=ids)
    assert torch.equal(softdraw.gumbel_topk(logits[order], 6, seed=2, rows=ids[order]), whole[order])
