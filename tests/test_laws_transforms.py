"""What every law promises under seeds and ids, masks, empty batches, torch.func and torch.compile (tests/laws.py)."""

import math

import pytest
import torch
from torch.testing import assert_close

from tests.laws import LAWS, MASK, logits, mean
from tests.methods import one_hot_logits

every_law = pytest.mark.parametrize("make", LAWS.values(), ids=LAWS)


def numbers(law, value):
    """What has a gradient."""
    return law.log_prob(value), law.entropy(), mean(law)


@every_law
def test_a_row_draws_the_same_wherever_it_is(make):
    x = one_hot_logits(12, 4)
    law = make(x)
    whole, ids = law.sample((3,), seed=7), torch.arange(12 * (1 if law.event_dims else 4)).view(law.batch_shape)
    assert torch.equal(law.sample(seed=7), whole[0])
    assert torch.equal(make(x.flip(0)).sample((3,), seed=7, rows=ids.flip(0)).flip(1), whole)
    assert torch.equal(make(x[5:]).sample((3,), seed=7, rows=int(ids[5].flatten()[0])), whole[:, 5:])
    assert torch.equal(make(x[5:]).sample((3,), seed=7, rows=torch.arange(5, 12)), whole[:, 5:])
    seeds = torch.arange(12)  # one for each sample of the batch
    alone = torch.stack([make(x[i : i + 1]).sample(seed=i)[0] for i in range(12)])
    assert torch.equal(law.sample(seed=seeds), alone)
    generator = torch.Generator().manual_seed(1)
    first, second = law.sample(generator=generator), law.sample(generator=generator)
    assert torch.equal(law.sample(generator=torch.Generator().manual_seed(1)), first)
    certain = law.entropy().sum().abs() < 1e-12
    assert certain or not torch.equal(first, second)
    assert certain or not torch.equal(whole[0], whole[1])


@every_law
def test_a_mask_is_minus_infinity(make):
    x = one_hot_logits(6, 4)
    law = make(x.masked_fill(~MASK, -math.inf))
    y = law.sample((20,), seed=0)
    base = make(x)
    if base.allowed is not None:
        assert torch.equal(base.sample((20,), seed=0), y)
        for ours, theirs in zip(numbers(base, y), numbers(law, y), strict=True):
            assert_close(ours, theirs)
    leaf = x.clone().requires_grad_()
    masked = make(leaf.masked_fill(~MASK, -math.inf))
    total = sum(torch.where(v.isfinite(), v, 0).sum() for v in numbers(masked, y))
    (g,) = torch.autograd.grad(total, leaf)
    assert g.isfinite().all()
    assert (g[:, ~MASK] == 0).all()


@every_law
def test_a_nan_row_is_nan_and_no_other_row(make):
    x = one_hot_logits(3, 4)
    x[1] = math.nan
    law, good = make(x), make(one_hot_logits(3, 4))
    y = good.sample(seed=0)
    off = ~MASK if law.event_dims == 0 and law.allowed is not None else torch.tensor(False)  # a bit that is 0 anyway
    for found, expected in zip(numbers(law, y), numbers(good, y), strict=True):
        assert_close(found[[0, 2]], expected[[0, 2]])
        assert (found[1].isnan() | off).all()
    drawn = law.sample(seed=0)
    assert torch.equal(drawn[[0, 2]], y[[0, 2]])
    assert (drawn[1].isnan() | off).all() if drawn.is_floating_point() else (drawn[1] == -1).all()


@every_law
def test_an_empty_batch(make):
    law = make(torch.zeros(0, 4))
    y = law.sample((2,), seed=0)
    assert y.shape == (2, *law.batch_shape, *law.event_shape)
    for found in numbers(law, y):
        assert found.numel() == 0
    assert law.log_prob(y).shape == (2, *law.batch_shape)
    assert make(logits())[:0].sample(seed=0).numel() == 0
    assert make(logits()).sample((0, 3), seed=0).shape == (0, 3, *make(logits()).sample(seed=0).shape)


@every_law
def test_derivatives_and_second_derivatives(make):
    x = one_hot_logits(2, 4).requires_grad_()
    y = make(x).sample(seed=0)
    assert torch.autograd.gradcheck(lambda x: numbers(make(x), y), x)
    assert torch.autograd.gradgradcheck(lambda x: numbers(make(x), y), x)


@every_law
def test_under_torch_func(make):
    x, tangent = one_hot_logits(3, 4), one_hot_logits(3, 4, seed=1)
    y = make(x).sample(seed=0)
    for found, expected in zip(
        torch.func.vmap(lambda x, y: numbers(make(x), y))(x, y), numbers(make(x), y), strict=True
    ):
        assert_close(found, expected)
    drawn = torch.func.vmap(lambda x: make(x).sample((2,), seed=3))(x)
    assert torch.equal(drawn, torch.stack([make(row).sample((2,), seed=3) for row in x]))

    def total(x):
        return sum(v.sum() for v in numbers(make(x), y))

    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(leaf), leaf)
    assert_close(torch.func.grad(total)(x), gradient)
    assert_close(torch.func.jvp(total, (x,), (tangent,))[1], (gradient * tangent).sum())


def test_under_compile():
    """Laws that no other test compiles, in one graph."""

    def every(x):
        found = []
        for name in ("masked bits", "first 2 of 4", "orders that end"):
            law = LAWS[name](x)
            y = law.sample((2,), seed=3)
            found += [y.double(), law.mode.double(), law.log_prob(y), law.entropy()]
        return found

    def gradient(values, x):
        return torch.autograd.grad(sum(v.sum() for v in values if v.requires_grad), x)[0]

    x = one_hot_logits(3, 4).requires_grad_()
    compiled = torch.compile(every, fullgraph=True, backend="aot_eager")(x)
    for found, expected in zip(compiled, every(x), strict=True):
        assert_close(found, expected)
    assert_close(gradient(compiled, x), gradient(every(x), x))
