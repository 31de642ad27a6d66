"""The law of coarse noise: published figures, quadrature, enumeration, and draws that are as far off as predicted."""

import math
import re
from pathlib import Path

import pytest
import scipy.integrate
import scipy.stats
import torch

import softdraw
from softdraw.cli import run
from softdraw.reproduce import chi_square, precision

P = torch.tensor([0.03, 0.55, 0.0004, 0.3196, 0.1], dtype=torch.float64)


def by_quadrature(p, first):
    """The integral over the time at which category n wins, piece by piece."""
    p = p.tolist()

    def wins(n):
        def density(t):
            return p[n] * math.exp(-sum(max(q * t - first, 0) for q in p))

        ends = sorted({first / q for q in p if first / q >= first / p[n]})
        pieces = [*zip(ends, [*ends[1:], ends[-1] + 60 / max(p)], strict=True)]
        return sum(scipy.integrate.quad(density, a, b, epsabs=1e-14, epsrel=1e-11)[0] for a, b in pieces)

    return torch.tensor([wins(n) for n in range(len(p))], dtype=torch.float64)


@pytest.mark.parametrize("first", [2.0**-24, 1e-3, 0.05, 1.0])
def test_the_formula_is_the_integral(first):
    found = precision.law(P, first)
    torch.testing.assert_close(found, by_quadrature(P, first), rtol=1e-9, atol=1e-13)
    assert found.sum().item() == pytest.approx(1, abs=1e-14)


def test_the_formula_is_the_law_of_draws():
    n, first = 400_000, 0.05
    e = torch.empty(n, 5, dtype=torch.float64).exponential_(generator=torch.Generator().manual_seed(1)) + first
    counts = torch.bincount((e / P).argmin(-1), minlength=5)
    expected = n * precision.law(P, first)
    kept = expected > 5
    assert counts[~kept].sum() < 5
    assert scipy.stats.chisquare(counts[kept], expected[kept] * counts[kept].sum() / expected[kept].sum()).pvalue > 1e-3


@pytest.mark.parametrize("bits", [3, 5])
def test_the_law_of_a_grid_is_its_enumeration(bits):
    p = torch.tensor([0.0317, 0.83, 0.1383], dtype=torch.float64)
    times = -(torch.arange(2**bits, dtype=torch.float64) / 2**bits).log().unsqueeze(-1) / p
    every = torch.stack(torch.meshgrid(*times.unbind(-1), indexing="ij"), -1).view(-1, 3)
    every = every[every.isfinite().any(-1)]  # three zeros: torch's own argmin decides
    counts = torch.bincount(every.argmin(-1), minlength=3).double() / 8**bits
    torch.testing.assert_close(precision.grid_law(p, 2.0**-bits), counts, rtol=0, atol=1.01 / 8**bits)


def test_a_grid_that_is_cut_off_is_the_whole_one(monkeypatch):
    p = torch.cat((torch.tensor([0.9]), torch.full((30,), 0.1 / 30))).double()
    whole = precision.grid_law(p, 2.0**-11)
    monkeypatch.setattr(precision, "_MOST", 0)
    torch.testing.assert_close(precision.grid_law(p, 2.0**-11), whole, rtol=1e-4, atol=0)


# d, where the noise begins: entropy, TV, rate; three digits and more of the published figures
PUBLISHED = [
    (1 / 128, 2.0**-24, 6.535, 0.140, None),
    (1 / 1024, 2.0**-24, 5.305, 0.296, 0.638),
    (1 / 4096, 2.0**-24, 4.462, 0.401, None),
    (1 / 128, 2.0**-31, 7.552, 2.1e-3, None),
    (1 / 1024, 2.0**-31, 7.458, 0.0159, 0.978),
    (1 / 4096, 2.0**-31, 7.181, 0.055, None),
    (1.0, 2.0**-24, None, 2.1e-3, 1.0),
    (1.0, 2.0**-31, None, 1.6e-5, 1.0),
    (1.0, 2.0**-53, None, 3.9e-12, 1.0),
    (1 / 128, 2.0**-53, 7.566, 5e-10, 1.0),
    (1 / 1024, 2.0**-53, 7.566, 4e-9, 1.0),
    (1 / 4096, 2.0**-53, 7.566, 1.6e-8, 1.0),
    (1 / 128, 2.0**-64, 7.566, 2.4e-13, 1.0),
    (1 / 1024, 2.0**-64, 7.566, 2e-12, 1.0),
    (1 / 4096, 2.0**-64, 7.566, 8e-12, 1.0),
]


@pytest.mark.parametrize(("share", "first", "entropy", "distance", "rate"), PUBLISHED)
def test_the_table(share, first, entropy, distance, rate):
    found = precision.step(share, first, grid=False)
    assert found.distance == pytest.approx(distance, rel=0.03)
    if entropy is not None:
        assert found.entropy == pytest.approx(entropy, abs=6e-4)
    if rate is not None:
        assert found.rate == pytest.approx(rate, abs=6e-4)


def test_how_many_tokens_are_starved():
    assert precision.step(1 / 1024, 2.0**-24, grid=False).starved == 39_683
    assert precision.step(1 / 1024, 2.0**-64, grid=False).starved == 0


def test_the_grid_of_torch_rand_by_draws():
    """A step of d = 1/16 over 40 tokens with uniforms of 11 bits: 2^-11 is to d what 2^-24 is to 1/131072."""
    n, size, share = 200_000, 40, 1 / 16
    true = precision.tokens(size)
    p = torch.cat((torch.tensor([1 - share]).double(), share * true))
    u = torch.rand(n, size + 1, dtype=torch.float16, generator=torch.Generator().manual_seed(2)).double()
    counts = torch.bincount((-u.log() / p).argmin(-1), minlength=size + 1)
    expected = n * precision.grid_law(p, 2.0**-11)
    kept = expected > 5
    assert scipy.stats.chisquare(counts[kept], expected[kept] * counts[kept].sum() / expected[kept].sum()).pvalue > 1e-3
    assert scipy.stats.chisquare(counts, n * p).pvalue < 1e-10


def parts(values, dtype):
    at = chi_square.problem(values, chi_square.BITS[dtype])
    expected = at.groups(at.law)
    mean, deviation = chi_square.predicted(at.groups(precision.grid_law(at.law, at.step)), expected)
    found = [
        chi_square.statistic(at.count(sampler, 0, iter), expected)
        for sampler in (chi_square.by_hand(dtype), chi_square.ours)
    ]
    return mean, deviation, *found


def test_torch_rand_fails_the_test_by_what_is_predicted_and_ours_passes():
    mean, deviation, by_hand, ours = parts(2**22, torch.float16)
    assert mean > 100
    assert abs(by_hand - mean) < 3.5 * deviation
    assert chi_square.p_value(by_hand) < 1e-10
    assert chi_square.p_value(ours) > 1e-3


@pytest.mark.long
def test_torch_rand_in_float32():
    mean, deviation, by_hand, ours = parts(2**31, torch.float32)
    assert abs(by_hand - mean) < 3.5 * deviation
    assert chi_square.p_value(by_hand) < 0.01
    assert chi_square.p_value(ours) > 1e-3


def test_the_predicted_statistic_is_that_of_counts():
    mean, expected = torch.tensor([30.0, 9.0, 2.0]).double(), torch.tensor([40.0, 20.0, 10.0]).double()
    counts = torch.poisson(mean.expand(200_000, 3), generator=torch.Generator().manual_seed(1))
    every = ((counts - expected) ** 2 / expected).sum(-1)
    middle, deviation = chi_square.predicted(mean, expected)
    assert every.mean().item() == pytest.approx(middle, abs=4 * deviation / 200_000**0.5)
    assert every.std().item() == pytest.approx(deviation, rel=0.02)
    for x in (0.5, 3.0, 20.0):
        assert chi_square.p_value(x) == pytest.approx(scipy.stats.chi2.sf(x, 3), rel=1e-9)


def test_the_command(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "NOISES", precision.NOISES[:1])
    assert run(["reproduce", "precision", "--values", "0", "--out", str(tmp_path / "new")]) == 0
    printed = capsys.readouterr().out
    assert "39,683" in printed
    assert "chi-square" not in printed
    assert (tmp_path / "new" / "precision.png").read_bytes().startswith(b"\x89PNG")
    assert run(["reproduce", "precision", "--values", "5"]) == 2
    assert "--values must be 0 or at least" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert run(["reproduce", "precision", "--out", str(tmp_path / "file")]) == 2
    assert "--out" in capsys.readouterr().err
    assert "chi-square" in str(chi_square.run(2**20, torch.float16))


# The page: each line by hand and the line in its place have the law that both should have.

K, TOP = 2, 0.7
LOGITS = torch.tensor([1.0, -0.5, 0.2, 2.0, -1.0])


def ordered(p):
    """Plackett and Luce: the law of two in order, as numbers 5 i + j."""
    return torch.tensor([[p[i] * p[j] / (1 - p[i]) if i != j else 0.0 for j in range(5)] for i in range(5)]).flatten()


def laws():
    p, tempered = LOGITS.double().softmax(-1), (LOGITS.double() / 0.6).softmax(-1)
    kept_k, kept_p = tempered * (LOGITS >= 1.0), tempered * (LOGITS >= 2.0)
    assert kept_p.sum() >= TOP
    return [
        tempered,
        p,
        tempered,
        ordered(tempered),
        p,
        p,
        tempered,
        kept_k / kept_k.sum(),
        kept_p / kept_p.sum(),
        ordered(p),
    ]


def rows_of_the_page():
    page = (Path(__file__).parents[1] / "docs" / "precision.md").read_text()
    return re.findall(r"^\| ([^|`]+) \| `([^`|]+)` \| `([^`|]+)` \|$", page, re.MULTILINE)


def outcome(line, seed):
    torch.manual_seed(seed)
    logits = LOGITS.expand(40_000, 5)
    names = {"torch": torch, "softdraw": softdraw, "logits": logits, "p": logits.softmax(-1), "T": 0.6, "k": K}
    names |= {"top_p": TOP, "inf": math.inf, "u": torch.rand_like(logits)}
    *before, last = line.split("; ")
    exec("; ".join(before), names)
    index = eval(last, names)
    return index if index.dim() == 1 else 5 * index[:, 0] + index[:, 1]


def test_the_page_has_ten_samplers():
    assert len(rows_of_the_page()) == len(laws()) == 10


@pytest.mark.parametrize("column", [1, 2])
@pytest.mark.parametrize("row", range(10))
def test_a_line_has_its_law(row, column):
    law = laws()[row]
    counts = torch.bincount(outcome(rows_of_the_page()[row][column], row), minlength=len(law))
    assert counts[law == 0].sum() == 0
    possible = law > 0
    if possible.sum() > 1:
        assert scipy.stats.chisquare(counts[possible], law[possible] * 40_000).pvalue > 1e-3
