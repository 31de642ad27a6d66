"""Seeds made from seeds, seeds of samples, single columns, and noise given an outcome."""

import json
import math
import re
from hashlib import blake2b
from pathlib import Path

import compilation
import pytest
import scipy.stats
import torch
from test_noise import python_gumbel, python_philox

import softdraw
from softdraw import noise

KNOWN = [  # seed, ids, what they make: also in docs/noise.md
    (0, (0,), 18031283562658385652),
    (0, (1,), 15137601830257862908),
    (1, (0,), 12928949092424127384),
    (-1, (-1,), 4139175123173962628),
    (123456789012345678, (2**64 - 2,), 4867769390708767450),
    (0, ("encoder.0",), 5299895542291539784),
    (0, ("training", 17), 12782965244483558148),
    (0, ("",), 5656929630674351260),
]
X = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
SEEDS = softdraw.fold_in(0, torch.arange(4))


def python_fold(seed, *ids):
    """By the contract, in Python's own integers."""
    for id in ids:
        key = (seed % 2**32, (seed >> 32) % 2**32)
        words = python_philox((id % 2**32, (id >> 32) % 2**32, 0, 2**32 - 1), key)
        seed = words[0] | words[1] << 32
    return seed


@pytest.mark.parametrize(("seed", "ids", "expected"), KNOWN)
def test_fold_in_known_answers(seed, ids, expected):
    numbers = [
        int.from_bytes(blake2b(i.encode(), digest_size=8).digest(), "little") if isinstance(i, str) else i for i in ids
    ]
    assert python_fold(seed, *numbers) == expected
    assert int(softdraw.fold_in(seed, *ids)) % 2**64 == expected
    # The formula in tensors, which devices run, and not that in Python's integers.
    key = torch.tensor([noise.signed(seed)])
    assert int(softdraw.fold_in(key, *ids)) % 2**64 == expected


def test_the_known_answers_of_the_document():
    text = (Path(__file__).parent.parent / "docs" / "noise.md").read_text()
    lines = re.findall(r"^    fold_in\((.*)\) += +(\d+)$", text, re.MULTILINE)
    assert len(lines) == 4
    for arguments, expected in lines:
        assert int(softdraw.fold_in(*json.loads(f"[{arguments}]"))) % 2**64 == int(expected)


def test_the_compiled_kernels_fold_the_same_name_in_by_the_same_counter():
    """They fold one id in, by its number: that of the noise that rules use besides the draw's own."""
    source = (Path(__file__).parents[1] / "csrc" / "noise.h").read_text()
    (number,) = re.findall(r"kConditional = (0x\w+);", source)
    name = int.from_bytes(blake2b(b"conditional", digest_size=8).digest(), "little")
    assert int(number, 16) == name == noise.CONDITIONAL % 2**64
    assert "kKeyStream = ~0u;" in source
    x, seed = X.double(), 5
    leaf = x.clone().requires_grad_()
    softdraw.draw(leaf, softdraw.GumbelRao(0.7, 2), seed=seed)[..., 0].sum().backward()
    g = softdraw.gumbel_noise(x.shape, seed=python_fold(seed, name), dtype=torch.float64)  # block 0, by the formula
    at = softdraw.gumbel_max(x, seed=seed)
    p, hit = x.softmax(-1), torch.nn.functional.one_hot(at, 5).bool()
    own = g.masked_fill(~hit, 0).sum(-1, keepdim=True)
    given = torch.where(hit, g - p.log(), -((-g).exp() + p * (-own).exp()).log())
    slopes = []
    for scores in (x + softdraw.gumbel_noise(x.shape, seed=seed, dtype=torch.float64), x + given):
        y = (scores / 0.7).softmax(-1)
        slopes.append(y * (torch.eye(5).double()[0] - y[..., :1]) / 0.7)
    torch.testing.assert_close(leaf.grad, sum(slopes) / 2)


def test_ids_are_numbers_names_and_tensors_alike():
    ids = torch.tensor([[3, -1, 2**40], [0, 1, -(2**63)]])
    got = softdraw.fold_in(7, "group", ids, 5)
    assert got.shape == (2, 3)
    for place in ((0, 0), (0, 1), (0, 2), (1, 2)):
        assert got[place] == softdraw.fold_in(7, "group", int(ids[place]), 5)
        assert got[place] == softdraw.fold_in(softdraw.fold_in(7, "group"), ids[place], torch.tensor(5).int())
    assert softdraw.fold_in(7, 2**64 + 3) == softdraw.fold_in(7, 3) == softdraw.fold_in(7 + 2**64 - 2**64, 3 - 2**64)
    assert softdraw.fold_in(7) == 7
    assert softdraw.fold_in(softdraw.fold_in(0, 1), 2) != softdraw.fold_in(softdraw.fold_in(0, 2), 1)


def test_the_counter_of_keys_is_nobodys():
    """Of all words that a draw reads, none has the stream of keys: the last stream has a tail stream below it."""
    assert noise.STREAMS - 1 + 2**31 < 2**32 - 1


def test_folded_seeds_are_unrelated():
    """Of 2^12 keys from one seed and of one id under 2^12 seeds, the bits are fair and the noise is uncorrelated."""
    n = 2**12
    for made in (softdraw.fold_in(0, torch.arange(n)), softdraw.fold_in(torch.arange(n), 0)):
        bits = (made.unsqueeze(-1) >> torch.arange(64)) & 1
        assert bits.double().mean(0).sub(0.5).abs().max() < 5 * 0.5 / math.sqrt(n)
        assert len(made.unique()) == n
        g = softdraw.gumbel_noise((n, 2), seed=made, dtype=torch.float64)
        assert scipy.stats.kstest(g.flatten().numpy(), "gumbel_r").pvalue > 1e-3
        assert abs(torch.corrcoef(torch.stack((g[:-1, 0], g[1:, 0])))[0, 1].item()) < 4 / math.sqrt(n)


@pytest.mark.parametrize("backend", compilation.BACKENDS)
def test_compiled_in_one_graph(backend):
    def step(x, seed, number, ids):
        key = softdraw.fold_in(seed, "encoder.0", number)
        mine = softdraw.fold_in(key, ids)
        return (
            key,
            softdraw.gumbel_max(x, seed=mine),
            softdraw.noise_at(ids, seed=key),
            softdraw.gumbel_noise((4, 5), seed=key, logits=x[:, 0], index=ids),
        )

    compiled = compilation.fresh(step, backend)
    ids, seed = torch.tensor([3, 0, 1, 4]), torch.tensor(11)
    for number in (1, 2, 3, -7, 2**40):
        for got, expected in zip(compiled(X, seed, number, ids), step(X, seed, number, ids), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    assert compilation.graphs() == 2  # the second one takes any number


def test_vmap():
    ids, seeds = torch.arange(6), softdraw.fold_in(3, torch.arange(6))
    expected = softdraw.fold_in(9, ids)
    assert torch.equal(torch.func.vmap(lambda i: softdraw.fold_in(9, i))(ids), expected)
    assert torch.equal(torch.func.vmap(lambda s: softdraw.fold_in(s, "a"))(seeds), softdraw.fold_in(seeds, "a"))
    both = torch.func.vmap(softdraw.fold_in, in_dims=(0, None))(seeds, ids)
    assert torch.equal(both, softdraw.fold_in(seeds.unsqueeze(-1), ids))
    x = torch.randn(6, 2, 5)
    mapped = torch.func.vmap(lambda x, i: softdraw.gumbel_max(x, seed=softdraw.fold_in(9, i)))(x, ids)
    assert torch.equal(mapped, softdraw.gumbel_max(x, seed=expected))
    per_sample = torch.func.vmap(lambda x, s: softdraw.gumbel_softmax(x, seed=s))(x.view(3, 2, 2, 5), seeds.view(3, 2))
    torch.testing.assert_close(per_sample, softdraw.gumbel_softmax(x, seed=seeds).view(3, 2, 2, 5))
    looked_up = torch.func.vmap(lambda i, s: softdraw.noise_at(i, seed=s))(ids.view(3, 2), seeds[:3])
    assert torch.equal(looked_up, softdraw.noise_at(ids.view(3, 2), seed=seeds[:3]))


def test_single_columns_are_those_of_the_block():
    ids = torch.tensor([7, 0, 2**45, 3])
    for options in ({}, {"rows": 5}, {"rows": ids}, {"stream": 3}, {"seed": SEEDS}):
        options = {"seed": 12, **options}
        block = softdraw.gumbel_noise((4, 9), **options)
        index = torch.tensor([0, 8, 3, 6])
        got = softdraw.noise_at(index, **options)
        torch.testing.assert_close(got, block.gather(-1, index.unsqueeze(-1)).squeeze(-1), rtol=2e-7, atol=2e-7)
        u = softdraw.uniform_at(index, **options, dtype=torch.float64)
        wide = softdraw.gumbel_noise((4, 9), **options, dtype=torch.float64).gather(-1, index.unsqueeze(-1))
        torch.testing.assert_close(-(-torch.log1p(-u)).log(), wide.squeeze(-1))
    many = torch.arange(9).expand(4, 9)
    rows = ids.unsqueeze(-1).expand(4, 9)
    looked_up = softdraw.noise_at(many, seed=1, rows=rows)
    torch.testing.assert_close(looked_up, softdraw.gumbel_noise((4, 9), seed=1, rows=ids), rtol=2e-7, atol=2e-7)


def test_a_column_that_needs_its_second_word():
    # The first word of seed 4 at this row and column is 4 (test_noise.py).
    got = softdraw.noise_at(torch.tensor([1085]), seed=4, rows=8622, dtype=torch.float64)
    assert got.item() == pytest.approx(python_gumbel(4, 8622, 1085, 0), rel=1e-14)


def test_no_draw_has_no_noise():
    for call in (softdraw.noise_at, softdraw.uniform_at):
        assert call(torch.tensor([-1, 0]), seed=0).isnan().tolist() == [True, False]


def test_coupled_draws_agree_as_often_as_the_formula_says():
    """With the same noise, P(same index) = sum_i 1 / sum_j max(p_j / p_i, q_j / q_i)."""
    p, q = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.2, 0.3, 0.5]).double()
    n = 100_000
    a, b = (softdraw.gumbel_max(x.log().expand(n, 3), seed=3) for x in (p, q))
    other = softdraw.gumbel_max(q.log().expand(n, 3), seed=softdraw.fold_in(3, "verification"))
    exact = sum(1 / sum(max(p[j] / p[i], q[j] / q[i]) for j in range(3)) for i in range(3)).item()
    for found, expected in (((a == b), exact), ((a == other), (p * q).sum().item())):
        assert abs(found.double().mean().item() - expected) < 4 * math.sqrt(expected * (1 - expected) / n)
