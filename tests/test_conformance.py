"""Samplers that are right pass every check; each that is wrong fails those that name what is wrong with it."""

import json
import math

import pytest
import scipy.stats
import torch

import softdraw
from softdraw.cli import run
from softdraw.conformance import check
from softdraw.conformance.statistics import chi_square, poisson

PLACE = ("ids", "order", "size", "parts", "independence")  # what noise that is keyed by the place breaks


def by_id(logits, seed, rows):
    return softdraw.gumbel_max(logits, seed=seed, rows=rows)


def by_seeds(logits, seed, rows):
    return softdraw.gumbel_softmax(logits, hard=True, seed=softdraw.fold_in(seed, rows)).argmax(-1)


def multinomial(logits, seed, rows):
    return torch.multinomial(logits.softmax(-1), 1, generator=torch.Generator().manual_seed(seed)).squeeze(-1)


def by_place(logits, seed, rows):
    return softdraw.gumbel_max(logits, seed=seed)


def tempered(logits, seed, rows):
    return softdraw.gumbel_max(logits * 1.05, seed=seed, rows=rows)


def leaky(logits, seed, rows):
    return softdraw.gumbel_max(logits.clamp_min(-9), seed=seed, rows=rows)


def half_the_id(logits, seed, rows):
    return softdraw.gumbel_max(logits, seed=seed, rows=rows % 2**32)


def half_the_seed(logits, seed, rows):
    return softdraw.gumbel_max(logits, seed=seed % 2**32, rows=rows)


def rows_counted_up(logits, seed, rows):
    return softdraw.gumbel_max(logits, seed=seed, rows=rows // 2)


def fresh(logits, seed, rows):
    return softdraw.gumbel_max(logits)


def floats(logits, seed, rows):
    return by_id(logits, seed, rows).float()


class ByHand:
    """LLaDA's argmax of exp(logits) / -log(u), with float32 uniforms that are keyed as they should be."""

    def __init__(self):
        self.memory = torch.empty(0)  # in place and with one logarithm: it makes 2^30 values

    def __call__(self, logits, seed, rows):
        if self.memory.shape != logits.shape:
            self.memory = torch.empty(logits.shape)
        for row, key in zip(self.memory, softdraw.fold_in(seed, rows).tolist(), strict=True):
            row.uniform_(generator=torch.Generator().manual_seed(key))
        return self.memory.log_().neg_().reciprocal_().mul_(logits.exp()).argmax(-1)


@pytest.mark.parametrize(
    ("sampler", "failed"),
    [
        (by_id, ()),
        (by_seeds, ()),
        (multinomial, PLACE),
        (by_place, PLACE),
        (tempered, ("law", "masks")),
        (leaky, ("masks",)),
        (half_the_id, ("independence",)),
        (half_the_seed, ("independence",)),
        (rows_counted_up, ("independence",)),
        (fresh, ("repeat", "ids", "order", "size", "parts")),
        (floats, ("output", "law", "repeat", "ids", "order", "size", "parts", "masks", "independence")),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_each_sampler_fails_what_it_breaks(sampler, failed):
    torch.manual_seed(0)
    report = check(sampler, tail=0)
    assert report.failed == failed, str(report)
    assert report.passed is (not failed)


def test_the_reason_is_said():
    report = str(check(by_place, tail=0)).splitlines()
    assert len(report) == 9
    assert next(line for line in report if "order:" in line).startswith("FAILED  order: 6")
    assert "ids 2^32 apart" in str(check(half_the_id, tail=0))
    assert "seeds 2^32 apart" in str(check(half_the_seed, tail=0))
    assert "neighbouring ids" in str(check(rows_counted_up, tail=0))
    assert "the sampler raised TypeError: it returned a tensor of torch.float32" in str(check(floats, tail=0))


@pytest.mark.long
def test_float32_noise_by_hand_fails_for_its_tail_alone():
    report = check(ByHand())
    assert report.failed == ("tail",), str(report)
    assert "the noise ends too early" in str(report)


def test_our_tail_passes():
    report = check(by_id, seed=3)
    assert report.passed, str(report)


def test_statistics_equal_scipy():
    counts, p = torch.tensor([30, 55, 0, 15]), torch.tensor([0.25, 0.6, 0.0, 0.15])
    expected = scipy.stats.chisquare([30, 55, 15], [25, 60, 15]).pvalue
    assert chi_square(counts, p) == pytest.approx(expected, rel=1e-6)
    assert chi_square(torch.tensor([30, 55, 1, 14]), p) == 0.0
    table = torch.tensor([[30, 20, 10], [15, 25, 35]])
    law = torch.outer(table.sum(1) / table.sum(), table.sum(0) / table.sum())
    assert chi_square(table, law, fitted=3) == pytest.approx(scipy.stats.chi2_contingency(table).pvalue, rel=1e-5)
    for count, mean in ((0, 16.0), (3, 16.0), (16, 16.0), (34, 16.0), (128, 16.0)):
        low, high = scipy.stats.poisson.cdf(count, mean), scipy.stats.poisson.sf(count - 1, mean)
        assert poisson(count, mean) == pytest.approx(min(low, high), rel=1e-9)


def test_the_tail_check_expects_what_the_formula_of_cut_noise_gives():
    """Noise on a grid of 2^-24 wins with probability a / (e^a - 1) of what it should, a = 2^-24 / probability."""
    probability = 16 / 2**30
    a = 2**-24 / probability
    hits = 16 * a / math.expm1(a)
    assert scipy.stats.poisson.cdf(3, hits) > 0.95  # and 3 are refused:
    assert poisson(3, 16.0) < 1e-4


def test_wrong_arguments():
    for call, error, words in (
        (lambda: check(3), TypeError, ["sampler", "int"]),
        (lambda: check(by_id, tail=100), ValueError, ["tail", "2**24", "100"]),
        (lambda: check(by_id, tail=-1), ValueError, ["tail", "-1"]),
        (lambda: check(by_id, seed="a"), TypeError, ["seed", "'a'"]),
        (lambda: check(by_id, device="nowhere"), ValueError, ["device", "nowhere"]),
    ):
        with pytest.raises(error) as caught:
            call()
        assert all(word in str(caught.value) for word in words), caught.value


def test_the_command(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(
        "import softdraw\n\ndef place(logits, seed, rows):\n    return softdraw.gumbel_max(logits, seed=seed)\n"
    )
    assert run(["conformance", f"{file}:place", "--tail", "0"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == str(check(by_place, tail=0)).splitlines()
    assert run(["conformance", f"{file}:place", "--tail", "0", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == check(by_place, tail=0).to_dict()
    assert run(["conformance", f"{file}:plaice"]) == 2
    assert "did you mean" in capsys.readouterr().err
    file.write_text(
        "import softdraw\n\ndef by_id(x, seed, rows):\n    return softdraw.gumbel_max(x, seed=seed, rows=rows)\n"
    )
    assert run(["conformance", f"{file}:by_id", "--tail", "0"]) == 0
