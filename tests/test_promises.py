"""What every public call promises: masks, special values, tau, dim, strides, batches, dtypes, evaluation, seeds."""

import math

import pytest
import torch

import softdraw

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
FORMS = [False, True]  # hard


def make(shape, dtype=torch.float32, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def draw_and_grad(logits, *args, **kwargs):
    """A draw, and the gradient of a random linear function of it."""
    leaf = logits.detach().clone().requires_grad_()
    y = softdraw.gumbel_softmax(leaf, *args, **kwargs)
    (y * make(y.shape, y.dtype, seed=99)).sum().backward()
    return y.detach(), leaf.grad


def one_hot_rows(y):
    return bool(((y == 0) | (y == 1)).all()) and torch.equal(y.sum(-1), torch.ones_like(y[..., 0]))


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


# tau


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tau", [1e-38, 1e-30, 1e-10, 0.01, 0.5, 1.0, 7.0, 1e10, 1e38])
def test_any_tau_is_safe_and_right(tau, dtype):
    logits = make((64, 6), dtype)
    index = softdraw.gumbel_max(logits, seed=5)
    scores = logits.double() + softdraw.gumbel_noise((64, 6), seed=5, dtype=torch.float64)
    truth = ((scores - scores.amax(-1, keepdim=True)) / tau).softmax(-1)
    for given in (tau, torch.tensor(tau, dtype=torch.float64), torch.full((64, 1), tau, dtype=torch.float64)):
        y, grad = draw_and_grad(logits, given, seed=5)
        # float32 scores are right to about 2^-21, which tau magnifies; the result is rounded to its dtype.
        tolerance = (0 if dtype == torch.float64 else min(1, 2**-20 / tau)) + 2 * torch.finfo(dtype).eps
        assert (y.double() - truth).abs().max() <= tolerance
        assert y.gather(-1, index[:, None]).eq(y.amax(-1, keepdim=True)).all()
        assert not grad.isnan().any()
        hard, grad = draw_and_grad(logits, given, hard=True, seed=5)
        assert torch.equal(hard.argmax(-1), index)
        assert one_hot_rows(hard)
        assert not grad.isnan().any()
    if tau <= 1e-10:
        assert one_hot_rows(y)
        assert (grad == 0).all()


@pytest.mark.parametrize("tau", [1e-300, 1e300])
def test_tau_beyond_float32(tau):
    y = softdraw.gumbel_softmax(make((5, 4)), tau, seed=0)
    wide = softdraw.gumbel_softmax(make((5, 4)), torch.tensor(tau, dtype=torch.float64), seed=0)
    assert torch.equal(y, wide)
    assert one_hot_rows(y) if tau < 1 else torch.equal(y, torch.full((5, 4), 0.25))


@pytest.mark.parametrize("hard", FORMS)
def test_tau_per_row_is_each_row_with_its_tau(hard):
    logits = make((3, 4, 5))
    tau = torch.rand(3, 1, 5, generator=torch.Generator().manual_seed(1)) + 0.2
    y, grad = draw_and_grad(logits, tau, hard, dim=1, seed=3)
    weight = make(y.shape, seed=99)
    for i in range(3):
        for j in range(5):
            leaf = logits[i, :, j].clone().requires_grad_()
            row = softdraw.gumbel_softmax(leaf, float(tau[i, 0, j]), hard, seed=3, rows=i * 5 + j)
            (row * weight[i, :, j]).sum().backward()
            torch.testing.assert_close(row, y[i, :, j])
            torch.testing.assert_close(leaf.grad, grad[i, :, j])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (6, 1)])
@pytest.mark.parametrize("hard", FORMS)
def test_gradient_of_tau(hard, shape, dtype):
    logits, weight = make((6, 5), dtype), make((6, 5), dtype, seed=8)
    tau = torch.full(shape, 0.8, dtype=torch.float64, requires_grad=True)
    (softdraw.gumbel_softmax(logits, tau, hard, seed=4) * weight).sum().backward()
    exact = torch.full(shape, 0.8, dtype=torch.float64, requires_grad=True)
    scores = logits.double() + softdraw.gumbel_noise((6, 5), seed=4, dtype=torch.float64)
    ((scores / exact).softmax(-1) * weight.double()).sum().backward()
    assert tau.grad.shape == shape
    # In half precision the saved soft output is rounded, and its logarithm with it.
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 5e-2)
    torch.testing.assert_close(tau.grad, exact.grad, rtol=tolerance, atol=tolerance)


def test_learned_tau_descends():
    logits, target = make((256, 5)), make((256, 5), seed=1).softmax(-1)
    tau = softdraw.nn.LearnedTau(init=2.0, floor=0.05)
    optimizer = torch.optim.SGD(tau.parameters(), lr=1.0)
    losses = []
    for _ in range(50):
        loss = (softdraw.gumbel_softmax(logits, tau(), seed=1) - target).square().sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    grid = torch.linspace(0.05, 20, 400)
    best = min((softdraw.gumbel_softmax(logits, t, seed=1) - target).square().sum(-1).mean().item() for t in grid)
    assert best <= losses[-1] < losses[0]
    assert losses[-1] - best < 0.3 * (losses[0] - best)


# dim, strides, batches


@pytest.mark.parametrize("hard", FORMS)
@pytest.mark.parametrize("dim", [0, 1, 2, 3, -1, -2, -3, -4])
def test_dim(dim, hard):
    logits = make((3, 4, 5, 2))
    mask = make((3, 4, 5, 2), seed=1) > -1.5
    y, grad = draw_and_grad(logits, 0.5, hard, dim=dim, mask=mask, seed=2)
    last = logits.movedim(dim, -1).contiguous().requires_grad_()
    want = softdraw.gumbel_softmax(last, 0.5, hard, mask=mask.movedim(dim, -1), seed=2)
    (want.movedim(-1, dim) * make(logits.shape, seed=99)).sum().backward()
    assert torch.equal(y, want.detach().movedim(-1, dim))
    assert torch.equal(grad, last.grad.movedim(-1, dim))
    index = softdraw.gumbel_max(logits, dim=dim, mask=mask, sample_shape=(2,), seed=2)
    assert torch.equal(index, softdraw.gumbel_max(last, mask=mask.movedim(dim, -1), sample_shape=(2,), seed=2))


LAYOUTS = {
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(0, 3).contiguous().transpose(0, 3),
    "expanded": lambda x: x[:1].expand_as(x),
    "sliced": lambda x: torch.stack([x, x], -1)[..., 0],
    "flipped": lambda x: x.flip(1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("hard", FORMS)
@pytest.mark.parametrize("dim", [1, -1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides_change_nothing(layout, dim, hard, dtype):
    logits = LAYOUTS[layout](make((3, 4, 5, 6), dtype))
    y = softdraw.gumbel_softmax(logits, 0.5, hard, dim=dim, seed=2)
    want = softdraw.gumbel_softmax(logits.contiguous(), 0.5, hard, dim=dim, seed=2)
    tolerance = 0 if hard else 4 * torch.finfo(dtype).eps  # torch sums in the order of the strides
    torch.testing.assert_close(y, want, rtol=tolerance, atol=0)
    assert y.stride() == torch.empty_like(logits).stride()
    leaf = logits.detach().requires_grad_()
    weight = make(logits.shape, dtype, seed=3)
    got = torch.autograd.grad(softdraw.gumbel_softmax(leaf, 0.5, hard, dim=dim, seed=2), leaf, weight)[0]
    leaf = logits.detach().contiguous().requires_grad_()
    want = torch.autograd.grad(softdraw.gumbel_softmax(leaf, 0.5, hard, dim=dim, seed=2), leaf, weight)[0]
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hard", FORMS)
@pytest.mark.parametrize("shape", [(0, 5), (2, 0, 5), (5,), (1, 5), (7, 1), (1,)])
def test_empty_single_and_one_category(shape, hard, dtype):
    logits = make(shape, dtype)
    y, grad = draw_and_grad(logits, 0.3, hard, seed=0)
    assert y.shape == grad.shape == logits.shape
    assert y.dtype == dtype
    index = softdraw.gumbel_max(logits, seed=0, sample_shape=(3,))
    assert index.shape == (3, *shape[:-1])
    if shape[-1] == 1:
        assert (y == 1).all()
        assert (grad == 0).all()
        assert (index == 0).all()
    elif shape == (5,):
        batch = softdraw.gumbel_softmax(logits[None], 0.3, hard, seed=0)
        assert torch.equal(y, batch[0])


# dtypes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_float32_rounded_once(dtype):
    logits = make((50, 33), dtype)
    y = softdraw.gumbel_softmax(logits, 0.7, seed=1)
    assert torch.equal(y, softdraw.gumbel_softmax(logits.float(), 0.7, seed=1).to(dtype))
    assert torch.equal(softdraw.gumbel_max(logits, seed=1), softdraw.gumbel_max(logits.float(), seed=1))


@pytest.mark.parametrize("enabled", [True, False])
def test_autocast_changes_no_dtype_and_no_draw(enabled):
    for dtype in DTYPES:
        logits = make((5, 6), dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y, grad = draw_and_grad(logits, 0.5, seed=1)
        plain, plain_grad = draw_and_grad(logits, 0.5, seed=1)
        assert torch.equal(y, plain)
        assert torch.equal(grad, plain_grad)


# Evaluation mode, seeds


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_noise(dtype):
    logits = make((40, 7), dtype)
    logits[0] = 0  # a tie
    state = torch.get_rng_state()
    soft = softdraw.gumbel_softmax(logits, 0.5, noise=False)
    hard = softdraw.gumbel_softmax(logits, 0.5, hard=True, noise=False)
    assert torch.equal(torch.get_rng_state(), state)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(soft.double(), (logits.double() / 0.5).softmax(-1), rtol=2 * eps, atol=1e-6)
    best = logits.float().argmax(-1)
    assert best[0] == 0
    assert torch.equal(hard, torch.nn.functional.one_hot(best, 7).to(dtype))


def test_where_the_seed_comes_from():
    logits = make((4, 6))
    draw = softdraw.gumbel_softmax
    assert torch.equal(draw(logits, seed=3), draw(logits, seed=torch.tensor(3)))
    assert torch.equal(draw(logits, seed=-1), draw(logits, seed=2**64 - 1))
    torch.manual_seed(5)
    a, b = draw(logits), draw(logits)
    torch.manual_seed(5)
    assert torch.equal(a, draw(logits))
    assert not torch.equal(a, b)
    state = torch.get_rng_state()
    draws = [draw(logits, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    draw(logits, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("hard", FORMS)
def test_rows_key_the_draw(hard):
    logits, ids = make((6, 3, 5)), torch.arange(100, 118).view(6, 3)
    whole = softdraw.gumbel_softmax(logits, 0.5, hard, seed=1, rows=100)
    assert torch.equal(whole, softdraw.gumbel_softmax(logits, 0.5, hard, seed=1, rows=ids))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(2))
    assert torch.equal(softdraw.gumbel_softmax(logits[order], 0.5, hard, seed=1, rows=ids[order]), whole[order])
    halves = [softdraw.gumbel_softmax(logits[i : i + 3], 0.5, hard, seed=1, rows=100 + 3 * i) for i in (0, 3)]
    assert torch.equal(torch.cat(halves), whole)
    index = softdraw.gumbel_max(logits[order], seed=1, rows=ids[order])
    assert torch.equal(index, softdraw.gumbel_max(logits, seed=1, rows=100)[order])


def test_ids_of_samples_key_all_their_rows():
    logits, ids = make((4, 3, 2, 5)), torch.tensor([7, 0, 2**40, 3])
    got = softdraw.gumbel_softmax(logits, 0.5, seed=1, rows=ids)
    every = ids.view(4, 1, 1) * 6 + torch.arange(6).view(3, 2)
    assert torch.equal(got, softdraw.gumbel_softmax(logits, 0.5, seed=1, rows=every))
    assert torch.equal(softdraw.gumbel_softmax(logits.movedim(-1, 1), 0.5, dim=1, seed=1, rows=ids), got.movedim(-1, 1))
    default = softdraw.gumbel_softmax(logits, 0.5, seed=1)
    assert torch.equal(softdraw.gumbel_softmax(logits, 0.5, seed=1, rows=torch.arange(4)), default)
    square = softdraw.gumbel_max(torch.zeros(6, 6, 50), seed=1, rows=torch.arange(6))
    assert len({tuple(row.tolist()) for row in square}) == 6
    for shape in ((4, 1, 1), (4, 1), (3,), (1,), (4, 3, 1), ()):
        with pytest.raises(ValueError, match="does not give an id to every row"):
            softdraw.gumbel_softmax(logits, seed=1, rows=torch.zeros(shape, dtype=torch.int64))


def test_a_batch_without_dimensions_has_a_0d_index():
    logits = make((5,))
    index = softdraw.gumbel_max(logits, seed=3)
    assert index.shape == ()
    assert torch.equal(index, softdraw.gumbel_max(logits[None], seed=3)[0])
    assert torch.equal(torch.func.vmap(lambda x: softdraw.gumbel_max(x, seed=3))(logits[None])[0], index)


def test_another_default_device_and_dtype_change_nothing():
    logits = make((5, 4))
    want = softdraw.gumbel_softmax(logits, 0.5, seed=1), softdraw.gumbel_noise((2, 3), seed=1)
    with torch.device("meta"):
        assert torch.equal(softdraw.gumbel_softmax(logits, 0.5, seed=1), want[0])
        assert torch.equal(softdraw.gumbel_noise((2, 3), seed=1), want[1])
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(softdraw.gumbel_softmax(logits, 0.5, seed=1), want[0])
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_logits(dtype):
    logits = make((40, 4)).to(dtype)
    y = softdraw.gumbel_softmax(logits, 0.5, hard=True, seed=1)
    assert y.dtype == dtype
    assert torch.equal(y.float().argmax(-1), softdraw.gumbel_max(logits.float(), seed=1))
