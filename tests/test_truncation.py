"""Truncated draws; temperature, top_k, top_p and min_p as tensors, which are a loop over the rows."""

from __future__ import annotations

import math

import compilation
import pytest
import torch
from leaves import make
from scipy.stats import chisquare

import softdraw
from softdraw.indices import truncation

ROWS = 12
TOP_K = torch.arange(1, ROWS + 1) * 2
TOP_P = torch.linspace(0.05, 1, ROWS, dtype=torch.float64)
MIN_P = torch.linspace(0, 1, ROWS, dtype=torch.float64)
HOT = torch.arange(ROWS, dtype=torch.float64) / 4
EACH = {
    "temperature": {"temperature": HOT},
    "top_k": {"top_k": TOP_K, "temperature": 0.7},
    "top_p": {"top_p": TOP_P},
    "min_p": {"min_p": MIN_P, "temperature": 2.0},
    "all": {"temperature": HOT, "top_k": TOP_K, "top_p": TOP_P.flip(0), "min_p": MIN_P / 2},
    "some": {"temperature": HOT, "top_k": 9, "top_p": TOP_P, "min_p": 0.01},
}


def a_row(options, i):
    return {name: x[i].item() if isinstance(x, torch.Tensor) else x for name, x in options.items()}


def loop(logits, mask, options, **keys):
    found = [
        softdraw.draw_index(x, mask=m, rows=torch.tensor(i), **a_row(options, i), **keys)
        for i, (x, m) in enumerate(zip(logits, mask, strict=True))
    ]
    return [torch.stack(x, -1) for x in zip(*found, strict=True)]


@pytest.mark.parametrize("name", EACH)
@pytest.mark.usefixtures("each_body")
def test_numbers_of_rows_are_a_loop_over_the_rows(name):
    logits = make((ROWS, 20)).mul(2).round().div(2)  # with ties
    mask = make((ROWS, 20), seed=1) > -1
    for samples in ((), (2,)):
        want = loop(logits, mask, EACH[name], seed=3, sample_shape=samples)
        for shape in ((ROWS,), (ROWS, 1)):
            options = {k: x.view(shape) if isinstance(x, torch.Tensor) else x for k, x in EACH[name].items()}
            got = softdraw.draw_index(logits, mask=mask, seed=3, sample_shape=samples, **options)
            for a, b in zip(got, want, strict=True):
                torch.testing.assert_close(a, b)


def test_what_counts_as_a_number_for_each_row():
    logits = make((3, 4, 10))
    k = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]], dtype=torch.uint8)
    whole = softdraw.draw_index(logits, top_k=k, seed=1).log_prob
    assert torch.equal(softdraw.draw_index(logits, top_k=k.unsqueeze(-1), seed=1).log_prob, whole)
    first = softdraw.draw_index(logits.movedim(-1, 0), dim=0, top_k=k, seed=1)
    assert torch.equal(first.log_prob, whole)
    of_columns = softdraw.draw_index(logits, top_k=k[:1].unsqueeze(-1), seed=1).log_prob  # broadcasts over the first
    assert torch.equal(of_columns, softdraw.draw_index(logits, top_k=k[:1].expand(3, 4), seed=1).log_prob)
    one = softdraw.draw_index(logits, top_p=torch.tensor(0.5), min_p=torch.tensor([0.1]), seed=1)
    assert torch.equal(one.log_prob, softdraw.draw_index(logits, top_p=0.5, min_p=0.1, seed=1).log_prob)


def test_top_p_of_1_keeps_everything_beside_rounding():
    logits = torch.tensor([0.0, -30.0, -50.0], dtype=torch.float64).expand(2, 3)  # 1 + exp(-50) is 1
    p = torch.tensor([[1.0], [0.5]], dtype=torch.float64)
    assert truncation.kept(logits, None, 1.0, (None, p, None)).tolist() == [[True] * 3, [True, False, False]]
    entropy = softdraw.draw_index(logits, top_p=p.squeeze(-1), seed=0).entropy
    assert (entropy > 0).tolist() == [True, False]


def test_gumbel_topk_takes_a_temperature_for_each_row():
    logits, mask = make((ROWS, 20)), make((ROWS, 20), seed=1) > -1
    want = [
        softdraw.gumbel_topk(x, 5, temperature=t.item(), mask=m, seed=2, rows=torch.tensor(i))
        for i, (x, m, t) in enumerate(zip(logits, mask, HOT, strict=True))
    ]
    for t in (HOT, HOT.unsqueeze(-1)):
        got = softdraw.gumbel_topk(logits, 5, temperature=t, mask=mask, seed=2)
        assert torch.equal(got, torch.stack(want))
    with pytest.raises(ValueError, match="temperature must be 0"):
        softdraw.gumbel_topk(logits, 5, temperature=-HOT)


def test_the_error_says_which_row():
    with pytest.raises(ValueError, match=r"top_k must be at least 1, got 0 in 2 of 3 rows"):
        softdraw.draw_index(make((3, 5)), top_k=torch.tensor([0, 4, -1]))
    with pytest.raises(ValueError, match=r"top_p must be greater than 0 and at most 1, got 1.5 in 1 of 3 rows"):
        softdraw.draw_index(make((3, 5)), top_p=torch.tensor([1.0, 1.5, 0.5]))
    with pytest.raises(ValueError, match=r"min_p of shape \(2,\) does not fit"):
        softdraw.draw_index(make((3, 5)), min_p=torch.ones(2))


def test_numbers_of_rows_compiled():
    logits = make((ROWS, 20))

    def draw(x, t, k, p, least):
        return softdraw.draw_index(x, temperature=t, top_k=k, top_p=p, min_p=least, seed=3)

    numbers = (HOT, TOP_K, TOP_P.flip(0), MIN_P / 2)
    compiled = compilation.fresh(draw, "aot_eager")
    for got, want in zip(compiled(logits, *numbers), draw(logits, *numbers), strict=True):
        torch.testing.assert_close(got, want)
    with pytest.raises(RuntimeError, match="top_p"):
        compiled(logits, HOT, TOP_K, TOP_P + 1, MIN_P)


def test_numbers_of_rows_under_vmap():
    logits = make((ROWS, 3, 20))

    def draw(x, t, k, p, least):
        return softdraw.draw_index(x, temperature=t, top_k=k, top_p=p, min_p=least, seed=3)

    numbers = (HOT, TOP_K, TOP_P, MIN_P)
    got = torch.func.vmap(draw)(logits, *numbers)
    want = [draw(*each) for each in zip(logits, *numbers, strict=True)]
    for a, *b in zip(got, *want, strict=True):
        torch.testing.assert_close(a, torch.stack(b))
    wrong = torch.func.vmap(draw)(logits, HOT + 1, 1 - TOP_K, TOP_P + 1, MIN_P + 2)  # nothing can be read here
    assert torch.equal(wrong.index, logits.argmax(-1))


# What is kept


def kept_by_definition(x, t, top_k, top_p, min_p):
    """One row, category by category, ties and all."""
    z = {j: v for j, v in enumerate(x.double().tolist()) if v > -math.inf}
    top = max(z.values())
    p = {j: (1.0 if v == top else 0.0) if t == 0 else math.exp((v - top) / t) for j, v in z.items()}
    if top_k is not None:
        bound = sorted(z.values(), reverse=True)[:top_k][-1]
        z = {j: v for j, v in z.items() if v >= bound}
    if top_p is not None:
        total, mass = sum(p[j] for j in z), 0.0
        for bound in sorted({p[j] for j in z}, reverse=True):
            mass += sum(p[j] for j in z if p[j] == bound)
            if mass >= top_p * total:
                break
        z = {j: v for j, v in z.items() if p[j] >= bound}
    if min_p is not None:
        z = {j: v for j, v in z.items() if p[j] >= min_p * max(p.values())}
    return set(z)


@pytest.mark.parametrize("t", [0.0, 0.7, 1.0])
@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p"),
    [(3, None, None), (30, None, None), (None, 0.6, None), (None, None, 0.3), (8, 0.55, 0.2), (1, None, None)],
)
def test_what_is_kept_is_the_definition(top_k, top_p, min_p, t):
    logits = make((60, 20)).mul(2).round().div(2)  # with many ties
    mask = make((60, 20), seed=1) > -1
    got = truncation.kept(logits, mask, t, (top_k, top_p, min_p))
    for row, allowed, kept in zip(logits, mask, got, strict=True):
        want = kept_by_definition(row.masked_fill(~allowed, -math.inf), t, top_k, top_p, min_p)
        assert set(kept.nonzero().flatten().tolist()) == want


def test_equal_logits_are_kept_together():
    tied = torch.tensor([2.0, 1.0, 1.0, 1.0, 0.0])
    for options, kept in (({"top_k": 2}, {0, 1, 2, 3}), ({"top_p": 0.5}, {0, 1, 2, 3}), ({"top_p": 0.4}, {0})):
        drawn = softdraw.draw_index(tied, **options, sample_shape=(2000,), seed=1).index
        assert set(drawn.tolist()) == kept


@pytest.mark.parametrize("options", [{"top_k": 3}, {"top_p": 0.7}, {"min_p": 0.25}, {"top_k": 4, "top_p": 0.9}])
def test_the_truncated_law(options):
    logits, t = torch.tensor([1.0, -0.5, 0.0, 2.0, 1.2, -3.0]), 1.3
    index, log_prob, entropy = softdraw.draw_index(logits, temperature=t, **options, sample_shape=(100_000,), seed=1)
    kept = truncation.kept(logits, None, t, (*(options.get(k) for k in ("top_k", "top_p", "min_p")),))
    assert 1 < kept.sum() < 6
    counts = index.bincount(minlength=6)
    assert (counts[~kept] == 0).all()
    expected = 100_000 * (logits.double()[kept] / t).softmax(-1)
    assert chisquare(counts[kept], expected).pvalue > 1e-3
    log_p = logits.double()[kept].log_softmax(-1)  # truncated, without the temperature
    whole = torch.full((6,), -math.inf, dtype=torch.float64).masked_scatter(kept, log_p)
    torch.testing.assert_close(log_prob.double(), whole[index], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(entropy[0].double(), -(log_p.exp() * log_p).sum(), rtol=1e-6, atol=1e-6)


def test_what_bounds_nothing_changes_nothing():
    logits = make((20, 9))
    plain = softdraw.draw_index(logits, seed=1)
    for options in ({"top_k": 9}, {"top_k": 10**9}, {"top_p": 1.0}, {"min_p": 0.0}, {"top_k": 9, "top_p": 1}):
        assert all(map(torch.equal, softdraw.draw_index(logits, seed=1, **options), plain))


def test_wide_batches_are_truncated_in_parts(monkeypatch):
    logits, mask, t = make((7, 3, 50)), make((7, 3, 50), seed=1) > -1, make((7, 3, 1), seed=2).abs()
    whole = truncation.kept(logits, mask, t, (20, 0.8, 0.01))
    for size in (1000, 300, 100, 40):
        monkeypatch.setattr(truncation, "_CHUNK", size)
        assert torch.equal(truncation.kept(logits, mask, t, (20, 0.8, 0.01)), whole)
