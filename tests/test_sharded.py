"""Rows whose categories are split over ranks: the draws, losses and gradients of whole rows, what is sent, and the ways
that others do it, which fail."""

import math
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from leaves import make
from ranks import on_ranks, sent
from sharded_cases import BROKEN, RULES, Part, Whole, cases, cuts

import softdraw
from softdraw import distributed
from softdraw.distributed import merge
from softdraw.operators import draws

V = 130_003


@pytest.fixture(scope="module")
def whole():
    return dict(cases(Whole()))


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_blocks_give_what_whole_rows_give(world, whole):
    found = on_ranks(world, lambda rank, world: dict(cases(Part(rank, world, 37))))
    for name, wanted in whole.items():
        for i, want in enumerate(wanted):
            got = [values[name][i] for values in found]
            if want.shape[-1:] == (37,):
                got = [torch.cat(got, -1)]
            for one in got:
                assert one.dtype == want.dtype, name
                torch.testing.assert_close(
                    one, want, equal_nan=True, atol=2e-6, rtol=2e-6, msg=lambda text, at=(name, i): f"{at}: {text}"
                )
    assert whole["soft True"][1][BROKEN].isnan().all()  # also forbidden categories, and in blocks without the NaN


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_the_index_is_that_of_the_whole_row_bit_for_bit(world):
    mask, ids, at = make((2, V), seed=1) > -0.5, torch.tensor([2**40 + 3, 5]), cuts(V, world)
    assert world == 1 or any((b - a) % 4 for a, b in pairwise(at))
    dtypes = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
    rows = {dtype: make((2, V), dtype) for dtype in dtypes}

    def work(rank, world):
        a, b = at[rank : rank + 2]
        keys = {"seed": 3, "mask": mask[:, a:b], "rows": ids}
        return [distributed.gumbel_max(x[:, a:b], a, **keys, sample_shape=(3,)) for x in rows.values()]

    wanted = [softdraw.gumbel_max(x, seed=3, mask=mask, rows=ids, sample_shape=(3,)) for x in rows.values()]
    assert len({int(i) for index in wanted for i in index.flatten()}) == 6  # the dtypes draw alike
    for found in on_ranks(world, work):
        assert all(torch.equal(got, want) for got, want in zip(found, wanted, strict=True))


def test_gradients_are_within_two_units_in_the_last_place():
    """Of the largest of the products p_j g_j / tau, of which a gradient is a difference."""
    x, w, at = make((3, V)) * 3, make((3, V), seed=1), cuts(V, 3)
    noise = softdraw.gumbel_noise(x.shape, seed=3)
    for rule in RULES:
        tau = rule.kernel().tau
        scores = x + noise if rule.kernel().name.startswith("gumbel") else x
        p = (scores.double() / tau).softmax(-1).amax(-1, keepdim=True)
        if rule.kernel().name in ("zgr", "reinmax"):
            p = (p + 1) / 2  # of the mean with the one-hot
        scale = p * w.abs().amax() / min(tau, 1)
        unit = 2.0 ** (scale.log2().floor() - 23)

        def gradient(leaf, call, weight):
            leaf = leaf.clone().requires_grad_()
            (call(leaf) * weight).sum().backward()
            return leaf.grad

        def work(rank, world, rule=rule):
            a, b = at[rank : rank + 2]
            return gradient(x[:, a:b], lambda t: distributed.draw(t, a, None, rule, seed=3), w[:, a:b])

        wanted = gradient(x, lambda t, rule=rule: softdraw.draw(t, rule, seed=3), w)
        assert ((torch.cat(on_ranks(3, work), -1) - wanted).abs() / unit).max() <= 2, rule


FORWARD = {  # bytes a row and rank of the all-gather; then those of the all-reduce in the backward pass
    "gumbel_max": (8, None),
    "soft": (12, 4),
    "hard": (12, 4),
    "learned tau": (12, 12),
    "draw_index": (24, 0),
    "log_prob": (12, 0),
    "entropy": (12, 0),
    "categorical_nll": (12, 0),
    "kl_to_uniform": (16, 0),
    "kl_to_prior": (20, 0),
    "StraightThrough": (16, 4),
    "ZGR": (16, 8),
    "ReinMax": (20, 8),
    "GappedStraightThrough": (12, 8),
    "StraightThroughGumbel": (12, 4),
    "GumbelSoftmax": (12, 4),
}


def test_what_is_sent_is_one_collective_of_a_few_bytes_a_row_in_each_pass():
    n, k = 5, 16

    def work(rank, world):
        own, a, found = make((n, k))[:, rank * 8 : rank * 8 + 8], rank * 8, {}
        tau = torch.tensor(0.5, requires_grad=True)
        calls = {
            "gumbel_max": lambda x: distributed.gumbel_max(x, a, seed=1),
            "soft": lambda x: distributed.gumbel_softmax(x, a, seed=1),
            "hard": lambda x: distributed.gumbel_softmax(x, a, hard=True, seed=1),
            "learned tau": lambda x: distributed.gumbel_softmax(x, a, None, tau, seed=1),
            "draw_index": lambda x: distributed.draw_index(x, a, seed=1).log_prob,
            "log_prob": lambda x: distributed.log_prob(x, torch.arange(n), a),
            "entropy": lambda x: distributed.entropy(x, a),
            "categorical_nll": lambda x: distributed.categorical_nll(x, torch.arange(n), a),
            "kl_to_uniform": lambda x: distributed.kl_to_uniform(x, a),
            "kl_to_prior": lambda x: distributed.kl_to_prior(x, x.detach().flip(0), a),
        }
        calls |= {type(r).__name__: lambda x, r=r: distributed.draw(x, a, None, r, seed=1) for r in RULES}
        sent()
        for name, call in calls.items():
            leaf = own.clone().requires_grad_()
            y = call(leaf)
            forward = sent()
            if y.requires_grad:
                y.sum().backward()
            found[name] = forward, sent()
        return found

    for found in on_ranks(2, work):
        assert found.keys() == FORWARD.keys()
        for name, (forward, backward) in FORWARD.items():
            assert forward <= 24
            wanted = [("allgather", n * forward)], [("allreduce", n * backward)] if backward else []
            assert found[name] == wanted, name


# Ways to do it that are wrong, and ours.


def blocks(rank, world, x):
    a, b = cuts(x.shape[-1], world)[rank : rank + 2]
    return x[:, a:b], a


def test_a_local_index_is_no_global_one():
    """Megatron-Bridge #4780: what is drawn from a block is numbered from the block's first column."""
    x = make((64, 40))

    def work(rank, world):
        own, a = blocks(rank, world, x)
        local = softdraw.gumbel_max(own, seed=3, col_start=a)
        return local, distributed.gumbel_max(own, a, seed=3)

    wanted = softdraw.gumbel_max(x, seed=3)
    found = on_ranks(2, work)
    assert not any(torch.equal(local, wanted) for local, _ in found)
    assert all(torch.equal(ours, wanted) for _, ours in found)


def test_an_index_beyond_2_to_the_24_is_exact():
    """vLLM #43391: an argmax that travels as float32 is another index from 2^24 + 1 on."""
    at, x = 2**32 - 11, torch.zeros(50, 6)
    wanted = softdraw.gumbel_max(torch.zeros(50, 11), seed=3, col_start=at) + at

    def work(rank, world):
        start = at + 6 * rank
        own = x[:, : 6 - rank]
        index, score = draws.best(own, torch.tensor(3), None, None, 1, start)
        packed = torch.stack([score[0], (index[0] + start).float()])
        every = [torch.empty_like(packed) for _ in range(world)]
        dist.all_gather(every, packed)
        score, as_float = torch.stack(every).unbind(1)
        theirs = as_float.gather(0, score.argmax(0, keepdim=True)).squeeze(0).long()
        return theirs, distributed.gumbel_max(own, start, seed=3)

    for theirs, ours in on_ranks(2, work):
        assert (theirs != wanted).float().mean() > 0.9
        assert torch.equal(ours, wanted)


def test_noise_by_rank_is_no_law_of_the_whole_row():
    """Each rank with a seed of its own: ranks disagree about what was drawn. One seed and local columns: every block
    has the same noise, so that of two equal blocks of equal logits the first always wins."""
    x = torch.zeros(400, 8)

    def work(rank, world):
        own = x[:, 4 * rank : 4 * rank + 4]
        other_seeds = distributed.gumbel_max(own, 4 * rank, seed=rank)
        own_rows = softdraw.gumbel_max(x, seed=rank)
        score = (own + softdraw.gumbel_noise(own.shape, seed=3)).amax(-1)
        every = [torch.empty_like(score) for _ in range(world)]
        dist.all_gather(every, score)
        return other_seeds, own_rows, torch.stack(every), distributed.gumbel_max(own, 4 * rank, seed=3)

    (_, first, local, ours), (_, second, _, again) = on_ranks(2, work)
    assert not torch.equal(first, second)
    assert torch.equal(local[0], local[1])
    assert torch.equal(ours, again)
    assert torch.equal(ours, softdraw.gumbel_max(x, seed=3))
    counts = ours.bincount(minlength=8)  # chi-square with 7 degrees of freedom: 24.3 is its 99.9 % point
    assert ((counts - 50) ** 2 / 50).sum() < 24.3


def test_padding_of_the_vocabulary_is_drawn_unless_it_is_forbidden():
    """A vocabulary of 13 padded to 16 for 4 ranks: zeros in the padding are drawn like any token."""
    x = torch.nn.functional.pad(make((200, 13)), (0, 3))
    mask = torch.arange(16) < 13

    def work(rank, world):
        part = slice(4 * rank, 4 * rank + 4)
        padded = distributed.gumbel_max(x[:, part], part.start, seed=3)
        return padded, distributed.gumbel_max(x[:, part], part.start, seed=3, mask=mask[part])

    for padded, ours in on_ranks(4, work):
        assert (padded >= 13).any()
        assert torch.equal(ours, softdraw.gumbel_max(x[:, :13], seed=3))


# The pure merge.


def test_ties_go_to_the_smallest_index_whatever_the_order_of_ranks():
    index, score = torch.tensor([[40, 7], [12, 3], [90, 9]]), torch.tensor([[1.5, 2.0], [1.5, 2.0], [1.5, 2.5]])
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        assert merge.best(index[order], score[order])[0].tolist() == [12, 9]

    def work(rank, world):
        tied = torch.ones(3, 4)
        return distributed.draw_index(tied, 4 * (world - 1 - rank), temperature=0.0, seed=1)

    for index, log_prob, _ in on_ranks(3, work):
        assert index.tolist() == [0, 0, 0]
        torch.testing.assert_close(log_prob, torch.full((3,), -math.log(12)))


def test_blocks_without_a_draw_do_not_count_unless_they_are_broken():
    nan, inf = math.nan, math.inf
    score = torch.tensor([[-inf, -inf, nan, 1.0], [2.0, -inf, 2.0, 0.5]])
    at, top = merge.best(torch.tensor([[2**32 - 1, 2**32 - 1, 2**32 - 1, 4], [8, 9, 7, 6]]), score)
    assert at.tolist() == [8, -1, -1, 4]
    assert top[:2].tolist() == [2.0, -inf]
    assert top[2].isnan()


@pytest.mark.parametrize("tau", [1.0, 1e-3])
def test_shares_are_those_of_the_row(tau):
    x = make((4, 30), torch.float64) * 5 + 1000
    x[2], x[3, :10] = -torch.inf, -torch.inf
    parts = x.split([10, 4, 16], -1)
    tops = torch.stack([p.amax(-1) for p in parts])
    base = torch.where(tops == -torch.inf, 0, tops)
    totals = torch.stack([((p - b.unsqueeze(-1)) / tau).exp().sum(-1) for p, b in zip(parts, base, strict=True)])
    top, whole, share = merge.shares(tops, totals, tau)
    torch.testing.assert_close(top[[0, 1, 3]] / tau + whole[[0, 1, 3]].log(), (x[[0, 1, 3]] / tau).logsumexp(-1))
    torch.testing.assert_close(share[:, [0, 1, 3]].sum(0), torch.ones(3, dtype=torch.float64))
    assert whole[2] == 0
    assert not share[:, 2].any()


@pytest.mark.long
def test_the_example_runs_on_four_ranks():
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc-per-node", "4", str(root / "examples" / "vocab_parallel.py")]
    around = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, env=around, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "tokens equal: True; one-hots equal: True" in said
    differences = re.search(r"log-probability (\S+), entropy (\S+), gradient (\S+)", said)
    assert differences
    assert all(float(x) < 1e-5 for x in differences.groups())
    page = (root / "docs" / "distributed.md").read_text()
    assert all(line in page for line in said.splitlines()[:2])
