"""draw_index: the exact law at a temperature and truncated, its log-probability and entropy, and their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from leaves import make
from scipy.stats import chisquare

import softdraw

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def truth(logits, index, mask=None):
    """Log-probability and entropy in float64, one row at a time from their definitions."""
    x = logits.double() if mask is None else logits.double().masked_fill(~mask, -math.inf)
    log_p = x.log_softmax(-1)
    log_prob = log_p.expand(*index.shape, x.shape[-1]).gather(-1, index.unsqueeze(-1)).squeeze(-1)
    return log_prob, -(log_p.exp() * log_p.clamp_min(-1e9)).sum(-1).expand(index.shape)


# The index


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(40, 7), (6, 48), (5, 300), (3, 2, 2500), (9,), (0, 5), (4, 1)])
def test_at_temperature_1_the_index_is_that_of_gumbel_max(shape, dtype):
    logits, mask = make(shape, dtype), make(shape, seed=1) > -1
    ids = torch.randint(2**60, shape[:-1], generator=torch.Generator().manual_seed(2)) if len(shape) > 1 else 5
    for options in ({}, {"mask": mask}, {"rows": ids, "col_start": 6}, {"sample_shape": (3, 2), "mask": mask}):
        got = softdraw.draw_index(logits, seed=7, **options)
        assert torch.equal(got.index, softdraw.gumbel_max(logits, seed=7, **options))
        assert got.log_prob.shape == got.entropy.shape == got.index.shape


@pytest.mark.parametrize("dim", [0, 1, -2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dim_and_strides(dtype, dim):
    logits = make((6, 5, 6), dtype)
    mask, t = make((6, 5, 6), seed=1) > -1, make((6, 5, 6), seed=2).narrow(dim, 0, 1).abs()
    got = softdraw.draw_index(logits, dim=dim, mask=mask, temperature=t, seed=3)
    moved = [a.movedim(dim, -1).contiguous() for a in (logits, mask, t)]
    want = softdraw.draw_index(moved[0], mask=moved[1], temperature=moved[2], seed=3)
    assert all(map(torch.equal, got, want))
    spread = torch.stack([logits, logits], -1)[..., 0]
    assert all(map(torch.equal, softdraw.draw_index(spread, seed=3), softdraw.draw_index(logits, seed=3)))


@pytest.mark.parametrize("t", [1e-30, 0.3, 1.0, 2.5, 1e6])
def test_a_temperature_scales_the_noise(t):
    logits = make((200, 30))
    noise = softdraw.gumbel_noise((200, 30), seed=4, dtype=torch.float64)
    scores = logits.double() + t * noise
    first, second = scores.topk(2).values.unbind(-1)
    clear = first - second > 1e-5 * max(1, t)
    assert clear.sum() > 190
    every = torch.full((200, 1), t)
    for temperature in (t, torch.tensor(t), every, torch.tensor(t, dtype=torch.float64)):
        index = softdraw.draw_index(logits, temperature=temperature, seed=4).index
        assert torch.equal(index[clear], scores.argmax(-1)[clear])


@pytest.mark.parametrize("t", [0.5, 1.0, 3.0])
def test_the_law_is_that_of_the_logits_over_the_temperature(t):
    logits = torch.tensor([1.0, -0.5, 0.0, 2.0])
    index = softdraw.draw_index(logits, temperature=t, sample_shape=(200_000,), seed=1).index
    expected = 200_000 * (logits.double() / t).softmax(-1)
    assert chisquare(index.bincount(minlength=4), expected).pvalue > 1e-3


@pytest.mark.parametrize("dtype", DTYPES)
def test_temperature_0_is_the_smallest_argmax(dtype):
    logits = make((50, 40), dtype).mul(2).round()
    want = logits.float().argmax(-1)
    assert (logits == logits.amax(-1, keepdim=True)).sum() > 60  # there are ties
    assert torch.equal(softdraw.draw_index(logits, temperature=0, seed=1).index, want)
    t = torch.arange(50).view(50, 1) % 2.0
    mixed = softdraw.draw_index(logits, temperature=t, seed=1).index
    assert torch.equal(mixed[::2], want[::2])
    assert torch.equal(mixed[1::2], softdraw.gumbel_max(logits, seed=1)[1::2])


@pytest.mark.parametrize("t", [0.0, 1e-45, 1e38, 3e38])
def test_extreme_temperatures_and_logits_are_finite(t):
    logits = torch.tensor([[3.4e38, -3.4e38, 0.0], [1.0, 1.5, -1.0]])
    index, log_prob, entropy = softdraw.draw_index(logits, temperature=t, sample_shape=(500,), seed=1)
    assert (index[:, 0] == 0).all()
    assert (index >= 0).all()
    assert log_prob.isfinite().all()
    assert entropy.isfinite().all()
    counts = index[:, 1].bincount(minlength=3)
    assert counts.tolist() == [0, 500, 0] if t < 1 else chisquare(counts).pvalue > 1e-3


# What the law says


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(40, 7), (6, 300), (3, 2, 2500), (9,)])
def test_log_prob_and_entropy_are_those_without_temperature(shape, dtype):
    logits, mask = 3 * make(shape, dtype), make(shape, seed=1) > -1
    for options in ({}, {"mask": mask}, {"mask": mask, "sample_shape": (2,)}):
        got = softdraw.draw_index(logits, temperature=0.4, seed=2, **options)
        log_prob, entropy = truth(logits, got.index, options.get("mask"))
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        assert got.log_prob.dtype == got.entropy.dtype == wide
        rtol, atol = (1e-12, 1e-12) if dtype == torch.float64 else (2e-6, 1e-6)
        torch.testing.assert_close(got.log_prob.double(), log_prob, rtol=rtol, atol=atol)
        torch.testing.assert_close(got.entropy.double(), entropy, rtol=rtol, atol=atol)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("which", [(1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("options", [{}, {"sample_shape": (3,)}, {"top_k": 4}, {"temperature": 0.3}])
def test_gradients_against_float64(options, which, dtype):
    logits, mask = make((6, 5, 33), dtype), make((1, 5, 33), seed=1) > -1
    leaf = logits.clone().requires_grad_()
    index, *said = softdraw.draw_index(leaf, mask=mask, seed=2, **options)
    weights = [w * make(s.shape, s.dtype, seed=3 + i) for i, (w, s) in enumerate(zip(which, said, strict=True))]
    (got,) = torch.autograd.grad(said, leaf, weights)
    kept = mask.expand(logits.shape)
    if "top_k" in options:
        x = logits.double().masked_fill(~mask, -math.inf)
        kept = kept & (x >= x.topk(4).values[..., -1:])
    exact = logits.double().requires_grad_()
    (want,) = torch.autograd.grad(truth(exact, index, kept), exact, [w.double() for w in weights])
    eps = torch.finfo(dtype).eps
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), want, rtol=2 * eps, atol=8 * max(eps, 2**-23) if eps < 1e-3 else 1e-5)
    assert (got[~kept] == 0).all()


def test_derivatives_of_every_order():
    leaf = make((2, 7), torch.float64).requires_grad_()

    def said(x):
        return softdraw.draw_index(x, seed=1, sample_shape=(2,), mask=torch.arange(7) != 3)[1:]

    assert torch.autograd.gradcheck(said, leaf)
    assert torch.autograd.gradgradcheck(said, leaf)
    assert torch.autograd.gradcheck(said, leaf, check_forward_ad=True)


def test_one_pass_keeps_the_logits_alone():
    logits = make((8, 4096)).requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        softdraw.draw_index(logits, seed=1)
    beyond = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in saved}
    beyond.pop(logits.untyped_storage().data_ptr())
    assert sum(beyond.values()) <= 8 * (8 + 8 + 24)  # an index, a logit and three numbers a row


# Rows without a draw


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, {"temperature": 0.5}, {"temperature": 0}, {"top_k": 2}, {"top_p": 0.5}])
def test_rows_without_a_draw(options, dtype):
    logits, clean = make((6, 12), dtype), make((6, 12), dtype)
    logits[1, 3], logits[2, 5], logits[4, 0] = math.nan, math.inf, math.nan
    mask = torch.ones(6, 12, dtype=torch.bool)
    mask[3], mask[4, 0] = False, False  # under a mask no value is looked at
    clean[4, 0] = 0
    leaves = [logits.requires_grad_(), clean.requires_grad_()]
    got, want = (softdraw.draw_index(x, mask=mask, seed=1, **options) for x in leaves)
    good = [0, 4, 5]
    assert (got.index == -1).tolist() == [False, True, True, True, False, False]
    assert all(torch.equal(a[good], b[good]) for a, b in zip(got, want, strict=True))
    assert got.log_prob[[1, 2]].isnan().all()
    assert got.entropy[[1, 2]].isnan().all()
    assert (got.log_prob[3], got.entropy[3]) == (-math.inf, 0)
    (gradient,) = torch.autograd.grad((got.log_prob.sum() * 2, got.entropy.sum()), leaves[0])
    (expected,) = torch.autograd.grad((want.log_prob.sum() * 2, want.entropy.sum()), leaves[1])
    assert torch.equal(gradient[good], expected[good])
    assert gradient[[1, 2]].isnan().any(-1).all()
    assert (gradient[3] == 0).all()


def test_a_forbidden_category_is_never_drawn():
    logits, mask = make((400, 20)), make((400, 20), seed=1) > 0.5
    allowed = mask.any(-1)
    for options in ({}, {"temperature": 5.0}, {"temperature": 0}, {"top_k": 3}, {"top_p": 0.3}, {"min_p": 0.9}):
        index = softdraw.draw_index(logits, mask=mask, seed=2, **options).index
        assert mask[allowed].gather(-1, index[allowed].unsqueeze(-1)).all()
        assert (index[~allowed] == -1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [1e9, 1e15, 3e38, -1e15])
@pytest.mark.usefixtures("each_body")
def test_equal_logits_of_any_size_keep_their_logarithm(size, dtype):
    x = torch.tensor([[size, size, -3e38], [size, size, size]], dtype=dtype).requires_grad_()
    said = softdraw.draw_index(x, seed=1)
    want = torch.tensor([2.0, 3.0], dtype=said.entropy.dtype).log()
    torch.testing.assert_close(-said.log_prob, want)
    torch.testing.assert_close(said.entropy, want)
    (gradient,) = torch.autograd.grad(said.log_prob.sum(), x)
    p = torch.tensor([[1 / 2, 1 / 2, 0], [1 / 3] * 3])
    torch.testing.assert_close(
        gradient.float(),
        torch.nn.functional.one_hot(said.index, 3) - p,
        rtol=0.01 if dtype == torch.bfloat16 else 1e-6,
        atol=1e-6,
    )
