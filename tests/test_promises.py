"""What every public call promises for dim, strides, batches, dtypes, evaluation and seeds."""

import pytest
import torch
from promise_cases import DTYPES, FORMS, draw_and_grad, make

import softdraw

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
