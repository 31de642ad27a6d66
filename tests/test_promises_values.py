"""What every public call promises for masks and special values."""

import math

import pytest
import torch
from promise_cases import DTYPES, FORMS, draw_and_grad, make, one_hot_rows

import softdraw

# Masks


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hard", FORMS)
def test_forbidden_categories_have_no_mass_and_no_gradient(hard, dtype):
    logits = make((200, 9), dtype)
    mask = torch.rand(200, 9, generator=torch.Generator().manual_seed(1)) > 0.4
    mask[:, 0] |= ~mask.any(-1)
    y, grad = draw_and_grad(logits, 0.7, hard, mask=mask, seed=2)
    assert (y[~mask] == 0).all()
    assert (grad[~mask] == 0).all()
    assert y.isfinite().all()
    assert grad.isfinite().all()
    torch.testing.assert_close(y.double().sum(-1), torch.ones(200).double(), rtol=0, atol=9 * torch.finfo(dtype).eps)
    # -inf logits mean the same.
    same, same_grad = draw_and_grad(logits.masked_fill(~mask, -math.inf), 0.7, hard, seed=2)
    assert torch.equal(y, same)
    assert torch.equal(grad, same_grad)


def test_allowed_categories_keep_their_conditional_law():
    logits = make((6,))
    mask = torch.tensor([True, False, True, True, False, True])
    index = softdraw.gumbel_max(logits.expand(100_000, 6), mask=mask, seed=3)
    p = logits.masked_fill(~mask, -math.inf).softmax(-1)
    counts = torch.bincount(index, minlength=6) / 100_000
    assert (counts[~mask] == 0).all()
    assert ((counts - p).abs() < 4 * (p * (1 - p) / 100_000).sqrt() + 1e-12).all()


def test_mask_does_not_touch_the_noise_of_what_it_allows():
    logits, mask = make((50, 8)), torch.ones(8, dtype=torch.bool)
    mask[5] = False
    free, masked = (softdraw.gumbel_softmax(logits, seed=1, mask=m) for m in (None, mask))
    torch.testing.assert_close(masked[:, mask], free[:, mask] / free[:, mask].sum(-1, keepdim=True))


@pytest.mark.parametrize("shape", [(5,), (4, 1), (1, 5), (3, 1, 5), (1, 1, 1), ()])
def test_mask_broadcasts(shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(4)) > 0.3
    logits = make((3, 4, 5))
    whole = mask.expand(3, 4, 5).clone()
    for hard in FORMS:
        assert torch.equal(
            softdraw.gumbel_softmax(logits, hard=hard, mask=mask, seed=0),
            softdraw.gumbel_softmax(logits, hard=hard, mask=whole, seed=0),
        )
    assert torch.equal(softdraw.gumbel_max(logits, mask=mask, seed=0), softdraw.gumbel_max(logits, mask=whole, seed=0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("how", ["mask", "-inf"])
@pytest.mark.parametrize("hard", FORMS)
@pytest.mark.parametrize("noise", [True, False])
def test_row_with_nothing_allowed(how, hard, noise, dtype):
    logits = make((3, 4), dtype)
    mask = None
    if how == "mask":
        mask = torch.ones(3, 4, dtype=torch.bool)
        mask[1] = False
    else:
        logits[1] = -math.inf
    y, grad = draw_and_grad(logits, 0.5, hard, mask=mask, noise=noise, seed=0 if noise else None)
    assert (y[1] == 0).all()
    assert (grad[1] == 0).all()
    assert y.isfinite().all()
    assert grad.isfinite().all()
    assert (y[[0, 2]].sum(-1) > 0.9).all()
    assert (softdraw.gumbel_max(logits, mask=mask, seed=0) == -1).tolist() == [False, True, False]


@pytest.mark.parametrize("hard", FORMS)
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_incoming_gradient_at_a_forbidden_category_goes_nowhere(bad, hard):
    logits = make((3, 4)).requires_grad_()
    mask = torch.tensor([True, True, False, True])
    y = softdraw.gumbel_softmax(logits, 0.5, hard, mask=mask, seed=0)
    weight = make((3, 4), seed=1)
    clean = torch.autograd.grad(y, logits, weight, retain_graph=True)[0]
    weight[:, 2] = bad
    assert torch.equal(torch.autograd.grad(y, logits, weight)[0], clean)


# Special values


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hard", FORMS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_inf_stay_in_their_row(bad, hard, dtype):
    logits = make((4, 5), dtype)
    clean, clean_grad = draw_and_grad(logits, 0.5, hard, seed=1)
    logits[2, 3] = bad
    y, grad = draw_and_grad(logits, 0.5, hard, seed=1)
    others = [0, 1, 3]
    assert y[2].isnan().all()
    assert grad[2].isnan().all()
    assert torch.equal(y[others], clean[others])
    assert torch.equal(grad[others], clean_grad[others])
    index = softdraw.gumbel_max(logits, seed=1)
    assert index[2] == -1
    assert (index[others] >= 0).all()
    # Under a mask the value is not looked at.
    mask = torch.ones(5, dtype=torch.bool)
    mask[3] = False
    y, grad = draw_and_grad(logits, 0.5, hard, seed=1, mask=mask)
    assert y.isfinite().all()
    assert grad.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_largest_finite_logits(dtype):
    logits = torch.full((2, 3), torch.finfo(dtype).min, dtype=dtype)
    logits[1] = torch.finfo(dtype).max
    logits[1, 0] = torch.finfo(dtype).min
    y = softdraw.gumbel_softmax(logits, 0.5, seed=0)
    assert y.isfinite().all()
    assert y[1, 0] == 0
    assert one_hot_rows(softdraw.gumbel_softmax(logits, 0.5, hard=True, seed=0))
