"""The corners of k of n items: one item, too few, forced in, NaN, a k for each row, no rows, and what is refused."""

import math

import pytest
import torch
from torch.distributions import kl_divergence
from torch.testing import assert_close

import softdraw
from tests.methods import one_hot_logits

INF = math.inf

ROWS = torch.tensor(
    [
        [0.3, -1.2, 2.0, 0.1],
        [-INF, 0.5, 0.2, -INF],
        [-INF, -INF, -INF, -INF],
        [INF, 0.5, 0.2, -INF],
        [INF, INF, 0.2, -1.0],
        [INF, INF, INF, INF],
        [math.nan, 0.5, 0.2, -INF],
        [1e4, -1e4, 3.0, 9999.0],
        [80.0, 0.0, 0.0, -20.0],
    ]
)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_one_item_is_a_category_in_every_number(dtype):
    theta = ROWS.to(dtype)
    ours, theirs = softdraw.Subset(theta, 1), softdraw.OneHotCategorical(theta)
    eye = torch.eye(4, dtype=dtype).unsqueeze(1)
    within = {"rtol": 4 * torch.finfo(dtype).eps, "atol": 1e-37 if dtype == torch.float32 else 1e-300}
    within["rtol"] = max(within["rtol"], 3e-6 if dtype != torch.float64 else 1e-14)
    for name in ("mean", "mode", "variance"):
        assert_close(getattr(ours, name), getattr(theirs, name), equal_nan=True, **within)
    assert_close(ours.entropy(), theirs.entropy(), equal_nan=True, rtol=within["rtol"], atol=1e-6)
    assert_close(ours.log_normalizer(), theirs.log_normalizer(), equal_nan=True, **within)
    assert_close(ours.log_prob(eye), theirs.log_prob(eye), equal_nan=True, rtol=within["rtol"], atol=1e-7)
    assert_close(ours.sample(seed=0).isnan(), theirs.sample(seed=0).isnan())
    g = one_hot_logits(4, dtype=dtype)
    finite = {"equal_nan": True, "rtol": within["rtol"], "atol": 1e-6}
    assert_close(ours.covariance_product(g), theirs.covariance_product(g), **finite)
    other = torch.tensor([0.5, -0.2, 1.0, 0.0], dtype=dtype)
    found = kl_divergence(ours, softdraw.Subset(other, 1))
    assert_close(found, kl_divergence(theirs, softdraw.OneHotCategorical(other.expand(theta.shape))), **finite)


@pytest.mark.parametrize("name", ["log_prob", "entropy", "mean", "log_normalizer"])
def test_one_item_is_a_category_in_every_gradient(name):
    grads = []
    rows = ROWS[[0, 1, 2, 7, 8, 0, 0, 0, 0]] if name == "log_normalizer" else ROWS  # at infinity it has no gradient
    for law in (lambda x: softdraw.Subset(x, 1), softdraw.OneHotCategorical):
        theta = rows.double().requires_grad_()
        made = law(theta)
        arriving = one_hot_logits(9, 4)
        if name == "log_prob":
            y = made.log_prob(torch.eye(4, dtype=torch.float64)[torch.tensor([0, 1, 2, 0, 1, 2, 3, 0, 1])])
            y = y.masked_fill(y.isinf(), 0)
        elif name == "mean":
            y = (made.mean * arriving).sum(-1)
        else:
            y = getattr(made, name)()
        grads.append(torch.autograd.grad(y.masked_fill(y.isinf(), 0).sum(), theta)[0])
    assert_close(*grads, equal_nan=True, rtol=1e-9, atol=1e-9)


def test_rows_that_have_no_subset():
    mask = torch.tensor([[True, False, False, False], [True, True, True, False], [False, False, False, False]])
    theta = one_hot_logits(3, 4).requires_grad_()
    law = softdraw.Subset(theta, 2, mask)
    zero = torch.zeros(4, dtype=torch.float64)
    for row in (0, 2):
        for value in (law.mean, law.mode, law.sample(seed=0), law.covariance_product(theta), law.rsample(seed=0)):
            assert torch.equal(value[row], zero)
        assert law.log_normalizer()[row] == law.log_prob(law.sample(seed=0))[row] == -INF
        assert law.entropy()[row] == 0
        assert kl_divergence(law, softdraw.Subset(theta, 2))[row] == 0
    assert law.sample_index(seed=0)[0].tolist() == [-1, -1]
    every = [
        law.log_normalizer()[1:2],
        law.entropy(),
        law.mean,
        law.rsample(seed=1),
        law.log_prob(law.sample(seed=0))[1:2],
    ]
    (gradient,) = torch.autograd.grad(sum(x.sum() for x in every), theta)
    assert gradient.isfinite().all()
    assert (gradient[~mask] == 0).all()
    assert (gradient[0] == 0).all()
    none = softdraw.Subset(theta, 0, mask)  # nothing is a subset of any row
    assert_close(none.log_normalizer().detach(), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-15)
    assert torch.equal(none.sample(seed=0), torch.zeros(3, 4, dtype=torch.float64))


def test_items_that_are_forced_in():
    theta = torch.tensor([[INF, 0.5, -0.3, 1.0], [INF, 0.5, -INF, 1.0]], dtype=torch.float64, requires_grad=True)
    law = softdraw.Subset(theta, 2)
    rest = softdraw.Subset(torch.tensor([[0.5, -0.3, 1.0], [0.5, -INF, 1.0]], dtype=torch.float64), 1)
    assert_close(law.mean[:, 1:], rest.mean)
    assert (law.mean[:, 0] == 1).all()
    assert_close(law.entropy(), rest.entropy())
    z = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    assert_close(law.log_prob(z), rest.log_prob(z[1:]))
    assert (law.log_prob(torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)) == -INF).all()
    (gradient,) = torch.autograd.grad(law.log_prob(z).sum() + law.entropy().sum(), theta)
    assert gradient.isfinite().all()
    assert (gradient[:, 0] == 0).all()
    assert (law.log_normalizer() == INF).all()
    assert law.sample(seed=0).isnan().all()
    assert law.sample_index(seed=0).tolist() == [[-1, -1], [-1, -1]]


def test_a_nan_row_is_nan_and_no_other_row():
    theta = torch.tensor([[0.1, math.nan, 0.3], [0.1, 0.2, 0.3]])
    law, alone = softdraw.Subset(theta, 2), softdraw.Subset(theta[1:], 2)
    for found, expected in (
        (law.mean, alone.mean),
        (law.entropy(), alone.entropy()),
        (law.log_normalizer(), alone.log_normalizer()),
        (law.mode, alone.mode),
        (law.sample(seed=0, rows=5), alone.sample(seed=0, rows=6)),
    ):
        assert found[0].isnan().all()
        assert_close(found[1:], expected)


def test_k_of_every_row():
    theta, k = one_hot_logits(2, 3, 5, dtype=torch.float32), torch.tensor([0, 2, 5])
    law = softdraw.Subset(theta, k)
    g = one_hot_logits(2, 3, 5, seed=1, dtype=torch.float32)
    z = law.sample((4,), seed=0)
    for i in range(3):
        one = softdraw.Subset(theta[:, i], int(k[i]))
        assert_close(law.mean[:, i], one.mean)
        assert_close(law.log_normalizer()[:, i], one.log_normalizer())
        assert_close(law.covariance_product(g)[:, i], one.covariance_product(g[:, i]))
        ids = torch.arange(6).view(2, 3)[:, i]
        assert torch.equal(z[:, :, i], one.sample((4,), seed=0, rows=ids))
        part = law[:, i] if i else law[..., 0]
        assert_close(part.mean, one.mean)
        assert_close(law.expand((7, 2, 3))[3, 0, i].mean, one.mean[0])
    index = law.sample_index((4,), seed=0)
    assert index.shape == (4, 2, 3, 5)
    assert (index[:, :, 0] == -1).all()
    assert torch.equal(index[:, :, 1, :2].sort(-1).values, index[:, :, 1, :2])
    assert (index[:, :, 1, 2:] == -1).all()
    assert torch.equal(index[0, 0, 2], torch.arange(5))
    assert softdraw.Subset(theta, torch.tensor([2, 2, 2])).states == 10
    with pytest.raises(TypeError, match="Exact does not serve Subset: it needs a support that can be enumerated"):
        softdraw.expect(lambda y: y.sum(-1), law, softdraw.Exact())
    assert kl_divergence(softdraw.Subset(theta[0, 0], 2), softdraw.Subset(theta[0, 0], 3)) == INF


def test_empty_batches_and_no_batch():
    law = softdraw.Subset(torch.zeros(0, 5), 2)
    assert law.sample((3,), seed=0).shape == (3, 0, 5)
    assert law.mean.shape == (0, 5)
    assert law.log_normalizer().shape == (0,)
    assert softdraw.Subset(torch.zeros(5), 2).sample((0,), seed=0).shape == (0, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(4), 5), "k must be from 0 to the 4 items of the logits, got 5"),
        ((torch.zeros(4), -1), "k must be from 0 to the 4 items of the logits, got -1"),
        ((torch.zeros(4), 2.0), "k must be an int, how many items are chosen, or a tensor"),
        ((torch.zeros(4), True), "k must be an int"),
        ((torch.zeros(2, 4), torch.tensor([1, 9])), "k must be from 0 to the 4 items of the logits, got 9"),
        ((torch.zeros(2, 4), torch.tensor([1.0, 2.0])), "k must be an int or a tensor of integers.*write k.long()"),
        ((torch.zeros(2, 4), torch.tensor([1, 2, 3])), r"k of shape \(3,\) does not broadcast to the batch \(2,\)"),
        ((torch.zeros(4, dtype=torch.int64), 2), "logits must be"),
        ((torch.zeros(4), 2, torch.ones(3, dtype=torch.bool)), r"mask of shape \(3,\) does not broadcast"),
    ],
)
def test_errors_say_what_is_wrong(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        softdraw.Subset(*arguments)


@pytest.mark.parametrize("function", [lambda x, k: softdraw.Subset(x, k).mean, softdraw.soft_topk], ids=["law", "soft"])
def test_a_tensor_of_k_is_refused_where_it_cannot_be_read(function):
    k = torch.tensor([1, 2])
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    with pytest.raises(Exception, match="k must be an int where its values cannot be read"):
        compiled(torch.zeros(2, 4), k)
    with pytest.raises(ValueError, match="k must be an int where its values cannot be read"):
        function(torch.zeros(2, 4, device="meta"), k.to("meta"))


def test_values_that_are_no_subset_are_errors():
    law = softdraw.Subset(torch.zeros(2, 4), 2, validate_args=True)
    for bad in ([1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 1.0, 0.0]):
        with pytest.raises(ValueError, match="value must be within the support of Subset"):
            law.log_prob(torch.tensor(bad))
    with pytest.raises(IndexError, match="index must be from 0 to 5"):
        law.state(torch.tensor(6))
