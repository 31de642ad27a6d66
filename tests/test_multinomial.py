"""multinomial draws by weights exactly, without limits; WeightedSampler has one order for a seed and an epoch."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from fractions import Fraction

import pytest
import torch
from scipy.stats import chisquare
from torch.utils.data import DataLoader, TensorDataset

import softdraw
from softdraw.indices.multinomial import _product_high, _whole
from softdraw.noise import words

MASK = 2**32 - 1


def philox(counter, key):
    """Philox4x32-10 on Python's integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        low, high = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(high >> 32) ^ c[1] ^ k[0], high & MASK, (low >> 32) ^ c[3] ^ k[1], low & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


def weights_of(shape, seed=0):
    w = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return w.masked_fill(w < 0.2, 0)


# With replacement


def test_known_answers_from_exact_integers():
    """What any implementation in any language must draw, on any device."""
    w, n, seed, row = torch.tensor([0.1, 0.0, 3.0, 2.5e-3, 1.0]), 200, 2**40 + 7, 5
    got = softdraw.multinomial(w, n, True, seed=seed, rows=row)
    integers = _whole(w.double()).tolist()
    bounds = list(itertools.accumulate(integers))
    want = []
    for i in range(n):
        low, high = (philox((c >> 2, row, 0, 0), (seed & MASK, seed >> 32))[c & 3] for c in (2 * i, 2 * i + 1))
        want.append(bisect_right(bounds, (((high << 32) | low) * bounds[-1]) >> 64))
    assert got.tolist() == want
    assert 1 not in want
    assert len(set(want)) >= 3


@pytest.mark.parametrize("scale", [1.0, 1e-300, 1e-310, 1e300, 3e-30])
@pytest.mark.parametrize("cols", [1, 2, 3, 1000, 4097])
def test_integers_are_the_weights_to_a_part_in_2_to_the_58(cols, scale):
    w = weights_of((cols,)).masked_fill(torch.arange(cols) == cols - 1, 0.7) * scale
    whole = _whole(w).tolist()
    assert 2**58 <= sum(whole) < 2**61
    exact = [Fraction(x) for x in w.tolist()]
    of_whole, of_exact = sum(whole), sum(exact)
    for q, x in zip(whole, exact, strict=True):
        assert (q == 0) == (x == 0)
        assert abs(Fraction(q, of_whole) - x / of_exact) <= Fraction(1, 2**57)


def test_the_product_is_that_of_integers():
    g = torch.Generator().manual_seed(0)
    low, high = torch.randint(2**32, (2, 500), generator=g)
    total = torch.randint(1, 2**61, (500,), generator=g)
    low[0] = high[0] = MASK
    total[1] = 1
    got = _product_high(low, high, total).tolist()
    triples = zip(low.tolist(), high.tolist(), total.tolist(), strict=True)
    assert got == [(((b << 32) | a) * t) >> 64 for a, b, t in triples]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_the_law_with_replacement(dtype):
    w = torch.tensor([1, 0, 3, 2, 0, 1]).to(dtype)
    drawn = softdraw.multinomial(w, 100_000, True, seed=1)
    counts, some = drawn.bincount(minlength=6), w > 0
    assert (counts[~some] == 0).all()
    assert chisquare(counts[some], 100_000 * (w.double() / w.double().sum())[some]).pvalue > 1e-3


def test_more_draws_begin_with_fewer_and_rows_key_them():
    w = weights_of((4, 3, 20))
    whole = softdraw.multinomial(w, 50, True, seed=1, rows=7)
    assert whole.shape == (4, 3, 50)
    assert torch.equal(softdraw.multinomial(w, 20, True, seed=1, rows=7), whole[..., :20])
    assert torch.equal(softdraw.multinomial(w[2], 50, True, seed=1, rows=7 + 6), whole[2])
    assert torch.equal(softdraw.multinomial(w.movedim(-1, 0), 50, True, dim=0, seed=1, rows=7), whole)
    assert len({tuple(r.tolist()) for r in whole.flatten(0, 1)}) == 12


def test_more_categories_than_torch_allows():
    """torch.multinomial refuses more than 2**24. A third of the mass lies beyond."""
    n = 2**24 + 2**20
    w = torch.ones(n)
    w[2**24 :] = 8.0
    with pytest.raises(RuntimeError, match="2\\^24"):
        torch.multinomial(w, 1)
    drawn = softdraw.multinomial(w, 3000, True, seed=1)
    beyond = int((drawn >= 2**24).sum())
    assert chisquare([3000 - beyond, beyond], [2000, 1000]).pvalue > 1e-3
    some = softdraw.multinomial(w, 300, seed=1)
    beyond = int((some >= 2**24).sum())
    assert len(some.unique()) == 300
    assert chisquare([300 - beyond, beyond], [200, 100]).pvalue > 1e-3


# Without replacement


def test_the_law_without_replacement():
    w = torch.tensor([1.0, 0.0, 3.0, 2.0], dtype=torch.float64)
    drawn = softdraw.multinomial(w.expand(50_000, 4), 2, seed=1)
    p = (w / w.sum()).tolist()
    pairs = {(i, j): p[i] * p[j] / (1 - p[i]) for i, j in itertools.permutations((0, 2, 3), 2)}
    counts = (drawn[:, 0] * 4 + drawn[:, 1]).bincount(minlength=16)
    assert sum(int(counts[4 * i + j]) for i, j in pairs) == 50_000
    observed = [int(counts[4 * i + j]) for i, j in pairs]
    assert chisquare(observed, [50_000 * x for x in pairs.values()]).pvalue > 1e-3


def test_a_row_ends_where_no_weights_are_left():
    w = torch.tensor([[1.0, 0.0, 3.0], [0.0, 0.0, 0.0]])
    got = softdraw.multinomial(w, 4, seed=0)
    assert sorted(got[0, :2].tolist()) == [0, 2]
    assert (got[0, 2:] == -1).all()
    assert (got[1] == -1).all()
    assert (softdraw.multinomial(w, 4, True, seed=0)[1] == -1).all()
    assert softdraw.multinomial(torch.ones(0, 3), 4, True, seed=0).shape == (0, 4)


def test_generators_and_transforms():
    w = weights_of((3, 9))
    for replacement in (True, False):

        def draw(w, replacement=replacement, **key):
            return softdraw.multinomial(w, 5, replacement, **(key or {"seed": 2}))

        first = draw(w, generator=torch.Generator().manual_seed(4))
        assert torch.equal(first, draw(w, generator=torch.Generator().manual_seed(4)))
        torch.manual_seed(4)
        assert torch.equal(draw(w, generator=None), first)
        assert torch.equal(torch.compile(draw, backend="aot_eager", fullgraph=True)(w), draw(w))
        assert torch.equal(torch.func.vmap(draw)(w), torch.stack([draw(x) for x in w]))
        bad = torch.func.vmap(draw)(torch.tensor([[1.0, -1.0], [math.nan, 1.0], [1.0, math.inf]]))
        assert (bad == -1).all()  # nothing can be read there


# WeightedSampler

WEIGHTS = weights_of((40,), seed=3)


def sampler(**options):
    return softdraw.WeightedSampler(WEIGHTS, 90, **{"seed": 5, "rank": 0, "ranks": 1} | options)


def test_the_key_of_an_epoch_is_a_block_that_no_draw_has():
    seed, epoch = 2**50 + 3, 2**33 + 9
    got = int(softdraw.fold_in(seed, epoch)) % 2**64
    first, second, *_ = philox((epoch & MASK, epoch >> 32, 0, MASK), (seed & MASK, seed >> 32))
    assert got == first | (second << 32)


def test_the_order_is_one_draw_for_a_seed_and_an_epoch():
    one = sampler()
    orders = []
    for epoch in range(3):
        one.set_epoch(epoch)
        orders.append(list(one))
        key = softdraw.fold_in(5, epoch)
        assert orders[-1] == softdraw.multinomial(WEIGHTS, 90, True, seed=key).tolist()
        assert list(one) == orders[-1]
    assert len(set(map(tuple, orders))) == 3
    assert {i for order in orders for i in order} <= set(WEIGHTS.nonzero().flatten().tolist())
    once = list(softdraw.WeightedSampler(WEIGHTS, 20, False, seed=5))
    assert len(set(once)) == 20
    assert list(softdraw.WeightedSampler(WEIGHTS.tolist(), 90, seed=torch.tensor(5))) == orders[0]


def test_its_law():
    counts = torch.tensor(list(softdraw.WeightedSampler([1.0, 0.0, 3.0], 20_000, seed=1))).bincount(minlength=3)
    assert counts[1] == 0
    assert chisquare(counts[[0, 2]], [5000, 15_000]).pvalue > 1e-3


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
def test_ranks_share_the_order(ranks):
    order = list(sampler())
    parts = [sampler(rank=r, ranks=ranks) for r in range(ranks)]
    lists = [list(p) for p in parts]
    assert {len(x) for x in lists} == {len(p) for p in parts} == {math.ceil(90 / ranks)}
    together = list(itertools.chain(*zip(*lists, strict=True)))
    assert together == order + order[: len(together) - 90]
    dropped = [list(sampler(rank=r, ranks=ranks, drop_last=True)) for r in range(ranks)]
    assert list(itertools.chain(*zip(*dropped, strict=True))) == order[: 90 // ranks * ranks]


def test_workers_change_nothing():
    data = TensorDataset(torch.arange(40))
    loaded = [
        [int(i) for (batch,) in DataLoader(data, 8, sampler=sampler(), num_workers=n) for i in batch] for n in (0, 2)
    ]
    assert loaded[0] == loaded[1] == list(sampler())


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 2), (2, 1), (1, 2), (3, 2)])
def test_it_goes_on_where_it_was(before, after):
    """With as many ranks as before or another number. To set the same epoch, as a loop does, moves nothing."""
    running = [sampler(rank=r, ranks=before) for r in range(before)]
    for s in running:
        s.set_epoch(4)
        list(itertools.islice(s, 12))
    state = running[0].state_dict()
    assert state == {"epoch": 4, "taken": 12 * before} == running[0].state_dict(taken=12)
    assert all(s.state_dict() == state for s in running)
    going = [sampler(rank=r, ranks=after) for r in range(after)]
    for s in going:
        s.load_state_dict(state)
        s.set_epoch(4)
    whole = sampler()
    whole.set_epoch(4)
    order = list(whole)
    assert list(itertools.chain(*zip(*map(list, going), strict=True))) == order[12 * before :]
    assert list(going[0]) == order[::after]  # and then from the beginning
    assert list(sampler(rank=0, ranks=1)) != order


def test_a_loop_that_was_left_begins_again():
    s = sampler()
    first = list(itertools.islice(s, 5))
    assert list(s)[:5] == first
    assert s.state_dict()["taken"] == 90


def test_words_are_those_of_the_noise_contract():
    """So that the integers above are those of docs/noise.md."""
    got = words(torch.tensor(9), torch.tensor([[3]]), 8, 0, torch.tensor(0))[0].tolist()
    assert got == [philox((c >> 2, 3, 0, 0), (9, 0))[c & 3] for c in range(8)]
