"""The law of the draw: chi-square at fixed seeds, significance 1e-4, and the same index in every form of the draw."""

import pytest
import scipy.stats
import torch

import softdraw

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
ALPHA = 1e-4


def make_logits(kind: str, k: int, dtype: torch.dtype) -> torch.Tensor:
    if kind == "equal":
        return torch.zeros(k, dtype=dtype)
    return (2 * torch.randn(k, generator=torch.Generator().manual_seed(k))).to(dtype)


def chi_square(index: torch.Tensor, probabilities: torch.Tensor) -> float:
    """The p-value of the draws; categories with fewer than 5 expected draws are pooled."""
    counts = torch.bincount(index.flatten(), minlength=len(probabilities)).double()
    expected = probabilities.double() * index.numel()
    rare = expected < 5
    if rare.any():
        counts = torch.cat([counts[~rare], counts[rare].sum(0, keepdim=True)])
        expected = torch.cat([expected[~rare], expected[rare].sum(0, keepdim=True)])
    return scipy.stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["equal", "skewed"])
@pytest.mark.parametrize("k", [2, 3, 10, 100, 1000])
def test_index_has_the_law_of_the_rounded_logits(k, kind, dtype):
    logits = make_logits(kind, k, dtype)
    n = max(10_000, 10 * k)
    index = softdraw.gumbel_max(logits.expand(n, k), seed=k)
    assert chi_square(index, logits.double().softmax(-1)) > ALPHA


@pytest.mark.parametrize("tau", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("hard", [False, True])
def test_tau_does_not_change_class_frequencies(tau, hard):
    logits = make_logits("skewed", 8, torch.float32)
    y = softdraw.gumbel_softmax(logits.expand(100_000, 8), tau, hard, seed=int(tau * 10))
    assert chi_square(y.argmax(-1), logits.softmax(-1)) > ALPHA


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_prefers_no_half_of_the_classes(dtype):
    # Noise in half precision has so few values that ties, which go to the first class, bend the law.
    index = softdraw.gumbel_max(torch.zeros(1000, dtype=dtype).expand(10_000, 1000), seed=4)
    first_half = (index < 500).double().mean().item()
    assert abs(first_half - 0.5) < 4 * 0.5 / 10_000**0.5


def test_streams_and_seeds_and_generators_all_have_the_law():
    logits = make_logits("skewed", 5, torch.float32)
    p = logits.softmax(-1)
    assert chi_square(softdraw.gumbel_max(logits, sample_shape=(300, 100), seed=1), p) > ALPHA
    generator = torch.Generator().manual_seed(1)
    draws = [softdraw.gumbel_max(logits.expand(10, 5), generator=generator) for _ in range(2000)]
    assert chi_square(torch.stack(draws), p) > ALPHA


def test_rare_categories_happen():
    # 2^16 categories share probability 1 %, each 1.5e-7: below 2^-22, where noise of 24-bit uniforms thins out.
    tail, n = 2**16, 200
    logits = torch.zeros(tail + 1)
    logits[0] = torch.log(torch.tensor(tail / 1e-2))
    index = softdraw.gumbel_max(logits, sample_shape=(n,), seed=12)
    hits = int((index > 0).sum())
    assert scipy.stats.binomtest(hits, n, 1e-2 / (1 + 1e-2)).pvalue > ALPHA


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tau", [1e-3, 0.3, 1.0, 30.0])
def test_soft_hard_and_index_share_their_argmax(tau, dtype):
    logits = (3 * torch.randn(500, 17, generator=torch.Generator().manual_seed(0))).to(dtype)
    index = softdraw.gumbel_max(logits, seed=9)
    soft = softdraw.gumbel_softmax(logits, tau, seed=9)
    hard = softdraw.gumbel_softmax(logits, tau, hard=True, seed=9)
    assert torch.equal(hard, torch.nn.functional.one_hot(index, 17).to(dtype))
    # A soft value in half precision may tie with the largest; the index always attains the maximum.
    assert torch.equal(soft.gather(-1, index[:, None])[:, 0], soft.amax(-1))
    if dtype in (torch.float32, torch.float64) and tau == 1.0:
        assert torch.equal(soft.argmax(-1), index)


def test_first_sample_is_the_plain_draw_and_each_sample_is_a_stream():
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(1))
    samples = softdraw.gumbel_max(logits, sample_shape=(2, 3), seed=6)
    assert torch.equal(samples[0, 0], softdraw.gumbel_max(logits, seed=6))
    for stream, sample in enumerate(samples.flatten(0, 1)):
        scores = logits + softdraw.gumbel_noise((3, 7), seed=6, stream=stream)
        assert torch.equal(sample, scores.argmax(-1))


def test_many_samples_are_the_same_in_pieces(monkeypatch):
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(1))
    whole = softdraw.gumbel_max(logits, sample_shape=(10,), seed=6)
    monkeypatch.setattr("softdraw.kernels.reference.draws._CHUNK", 50)
    assert torch.equal(softdraw.gumbel_max(logits, sample_shape=(10,), seed=6), whole)
    assert softdraw.gumbel_max(logits, sample_shape=(0,), seed=6).shape == (0, 3)
