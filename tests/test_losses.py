"""Losses against truth in float64, computed here by other means, over the whole range of logits and dtypes."""

import contextlib
import math

import pytest
import torch
import torch.nn.functional as F
from loss_cases import LOSSES, ROWWISE, logits

from softdraw import losses

INF = math.inf
X = [1e4, -1e4, 50.0, -50.0, 20.0, -20.0, 12.0, -12.0, 0.0, INF, -INF]
TARGETS = [0.0, 0.3, 1.0]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"))
DEVICES = ["cpu", CUDA]


def region(device, autocast):
    return torch.autocast(device, torch.bfloat16) if autocast else contextlib.nullcontext()


def log1p_exp(x):
    return x if x > 700 else math.log1p(math.exp(x))


def sigmoid(x):
    return math.exp(-log1p_exp(-x))


def product(a, b):
    return 0.0 if a == 0 else a * b


def bernoulli_truth(x, y, p):
    loss = product(p * y, log1p_exp(-x)) + product(1 - y, log1p_exp(x))
    return loss, (1 - y) * sigmoid(x) - p * y * sigmoid(-x)


def law(row):
    """softmax and log softmax of a list of logits, as limits where they are infinite."""
    top = max(row)
    shifted = [(0.0 if x == INF else -INF) if top == INF else x - top for x in row]
    total = math.fsum(math.exp(x) for x in shifted)
    return [math.exp(x) / total for x in shifted], [x - math.log(total) for x in shifted]


def backward(loss, x):
    return torch.autograd.grad(loss.sum(), x)[0].double().cpu()


def close(got, want, dtype):
    """Gradients come back in the dtype of the logits; everything before is float32 (float64 for float64)."""
    limits = torch.finfo(dtype)
    want = torch.as_tensor(want, dtype=torch.float64)
    torch.testing.assert_close(got.double().cpu(), want, rtol=max(limits.eps, 4e-16) * 4, atol=limits.tiny)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pos_weight", [None, 3.0])
def test_bernoulli_nll_equals_truth(dtype, autocast, device, pos_weight):
    x = torch.tensor(X, dtype=dtype, device=device).repeat(len(TARGETS)).requires_grad_()
    y = torch.tensor(TARGETS, device=device).repeat_interleave(len(X))
    with region(device, autocast):
        loss = losses.bernoulli_nll(x, y, pos_weight, reduction="none")
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    truth = [bernoulli_truth(a, b, pos_weight or 1.0) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    close(loss, [t[0] for t in truth], loss.dtype)
    close(backward(loss, x), [t[1] for t in truth], dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_categorical_losses_equal_truth(dtype, autocast, device):
    grid = torch.tensor([[a, 0.0, b] for a in X for b in (-3.0, a, -INF)], dtype=dtype, device=device)
    laws = [law(row) for row in grid.tolist()]
    prior = [0.5, -1.0, 0.25]
    log_p = law(prior)[1]
    for t in ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.3, 0.7, 0.0]):
        x = grid.clone().requires_grad_()
        t = torch.tensor(t, device=device)
        with region(device, autocast):
            loss = losses.categorical_nll(x, t.expand(x.shape), reduction="none")
        truth = [math.fsum(product(a, -b) for a, b in zip(t.tolist(), log_q, strict=True)) for _, log_q in laws]
        eps = torch.finfo(loss.dtype).eps  # log(1 + small) is as far off as 1 + small is
        truth = torch.tensor(truth, dtype=torch.float64)
        torch.testing.assert_close(loss.double().cpu(), truth, rtol=4 * eps, atol=4 * eps)
        want = [[b - a for a, b in zip(t.tolist(), q, strict=True)] for q, _ in laws]
        torch.testing.assert_close(
            backward(loss, x), torch.tensor(want, dtype=torch.float64), rtol=0, atol=4 * torch.finfo(dtype).eps
        )
        if t.max() == 1:
            index = t.argmax().expand(len(grid))
            assert torch.equal(losses.categorical_nll(x, index, reduction="none"), loss)
    x = grid.clone().requires_grad_()
    with region(device, autocast):
        rows = [
            losses.entropy(x, reduction="none"),
            losses.kl_to_uniform(x, reduction="none"),
            losses.kl_to_prior(x, torch.tensor(prior, device=device), reduction="none"),
        ]
    signs, offsets = (-1, 1, 1), ([0.0] * 3, [-math.log(3)] * 3, log_p)
    for loss, sign, offset in zip(rows, signs, offsets, strict=True):
        want = [math.fsum(product(p, lq - o) for p, lq, o in zip(*both, offset, strict=True)) for both in laws]
        slope = [
            [product(p, lq - o - kl) for p, lq, o in zip(*both, offset, strict=True)]
            for both, kl in zip(laws, want, strict=True)
        ]
        exact = {"rtol": 1e-5 if loss.dtype == torch.float32 else 1e-12, "atol": 4 * torch.finfo(loss.dtype).eps}
        torch.testing.assert_close(loss.double().cpu(), sign * torch.tensor(want, dtype=torch.float64), **exact)
        gradient = sign * torch.tensor(slope, dtype=torch.float64)
        rough = {"rtol": max(1e-5, 4 * torch.finfo(dtype).eps), "atol": 8 * torch.finfo(loss.dtype).eps}
        torch.testing.assert_close(backward(loss, x), gradient.to(dtype).double(), **rough)


def test_a_row_that_allows_nothing_and_a_row_with_nan_keep_to_themselves():
    x = torch.tensor([[-INF, -INF], [math.nan, 0.0], [1.0, 2.0]], requires_grad=True)
    for loss, dead in (
        (losses.categorical_nll(x, torch.tensor([0, 0, 0]), reduction="none"), INF),
        (losses.entropy(x, reduction="none"), 0.0),
        (losses.kl_to_uniform(x, reduction="none"), 0.0),
    ):
        grad = backward(loss, x)
        assert loss[0] == dead
        assert (grad[0] == 0).all()
        assert loss[1].isnan()
        assert loss[2].isfinite()
        assert grad[2].isfinite().all()
        assert grad[2].any()


def test_a_prior_that_forbids_what_is_allowed_is_infinite_and_pushes_away():
    x = torch.tensor([0.0, 1.0, 0.0], requires_grad=True)
    loss = losses.kl_to_prior(x, torch.tensor([0.0, -INF, 0.0]))
    grad = backward(loss, x)
    assert loss == INF
    assert grad.isfinite().all()
    assert grad[1] > 1e30
    assert (grad[[0, 2]] < -1e30).all()
    allowed = torch.tensor([0.0, -INF, 0.0], requires_grad=True)
    assert losses.kl_to_prior(allowed, torch.tensor([0.0, -INF, 0.0])) == 0


def test_usage_losses_equal_their_formulas():
    x = torch.tensor([[2.0, -1.0, 0.5], [0.0, -INF, 1e4], [INF, 0.0, 3.0]], dtype=torch.float64)
    laws = [law(row)[0] for row in x.tolist()]
    w = [0.5, 0.0, 2.0]
    mean = [math.fsum(a * q[k] for a, q in zip(w, laws, strict=True)) / 2.5 for k in range(3)]
    perplexity = math.exp(-math.fsum(p * math.log(p) for p in mean))
    weight = torch.tensor(w, dtype=torch.float64)
    assert losses.diversity(x, weight=weight).item() == pytest.approx((3 - perplexity) / 3, rel=1e-12)
    busy = [1.0, 0.0, 0.0]  # both rows of weight choose category 0
    want = 3 * math.fsum(f * p for f, p in zip(busy, mean, strict=True))
    assert losses.load_balance(x, weight=weight).item() == pytest.approx(want, rel=1e-12)
    chosen = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 1, 1]])
    want = 3 * math.fsum(f * p for f, p in zip([0.1, 0.5, 0.4], mean, strict=True))
    assert losses.load_balance(x, chosen, weight=weight).item() == pytest.approx(want, rel=1e-12)
    gates = [sigmoid(2.0), sigmoid(-1.0), sigmoid(0.5)]
    got = losses.keep_ratio(x[0], 0.7, weight=weight)
    assert got.item() == pytest.approx((0.7 - (0.5 * gates[0] + 2 * gates[2]) / 2.5) ** 2, rel=1e-12)
    x = torch.tensor([[9.0, -INF], [8.0, -INF]], requires_grad=True)
    assert (backward(losses.diversity(x), x) == 0).all()


def test_usage_extremes():
    even = 50 * torch.eye(4)
    one = even[:1].expand(4, 4)
    assert losses.diversity(even).item() == pytest.approx(0, abs=1e-6)
    assert losses.diversity(one).item() == pytest.approx(3 / 4)
    assert losses.load_balance(even).item() == pytest.approx(1)
    assert losses.load_balance(one).item() == pytest.approx(4)
    both = torch.stack([even, one])  # (groups, rows, K)
    torch.testing.assert_close(losses.diversity(both, group_dim=0, reduction="none"), torch.tensor([0.0, 0.75]))
    torch.testing.assert_close(losses.load_balance(both, group_dim=0, reduction="sum"), torch.tensor(5.0))
    mask = torch.tensor([[True] * 4, [False] * 4])  # a group without a row adds nothing
    assert losses.diversity(both, group_dim=0, mask=mask).item() == pytest.approx(0, abs=1e-6)
    moved = both.permute(1, 2, 0)  # (rows, K, groups)
    assert torch.equal(losses.diversity(moved, dim=1, group_dim=2), losses.diversity(both, group_dim=0))


@pytest.mark.parametrize("name", ["bernoulli_nll", *ROWWISE])
def test_reductions_mask_and_weight(name):
    loss = LOSSES[name]
    x = logits(5, 4)
    shape = x.shape if name == "bernoulli_nll" else x.shape[:1]
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) > 0.4
    weight = torch.rand(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    plain = loss(x, reduction="none")
    kept = torch.where(mask, weight * plain, 0)
    torch.testing.assert_close(loss(x, mask=mask, weight=weight, reduction="none"), kept)
    torch.testing.assert_close(loss(x, mask=mask, weight=weight, reduction="sum"), kept.sum())
    torch.testing.assert_close(loss(x, mask=mask, weight=weight), kept.sum() / weight[mask].sum())
    torch.testing.assert_close(loss(x), plain.mean())
    spoiled = x.masked_fill(~(mask if mask.dim() == 2 else mask.unsqueeze(-1)), math.nan).requires_grad_()
    grad = backward(loss(spoiled, mask=mask), spoiled)
    assert torch.equal(loss(spoiled, mask=mask), loss(x, mask=mask))
    assert (grad[~mask] == 0).all()
    assert grad.isfinite().all()
    nothing = loss(spoiled, mask=torch.zeros_like(mask))
    assert nothing == 0
    assert (backward(nothing, spoiled) == 0).all()


@pytest.mark.parametrize("name", [*ROWWISE, "diversity", "load_balance"])
def test_dim_is_where_the_categories_are(name):
    x = logits(5, 4)
    if name in ("categorical_nll", "cross_entropy"):
        target = torch.arange(5) % 4 if name == "categorical_nll" else torch.full((4, 5), 0.25)
        got = losses.categorical_nll(x.T, target, dim=0)
    else:
        args = (0.1 * torch.arange(4),) if name == "kl_to_prior" else ()
        got = getattr(losses, name)(x.T, *args, dim=0)
    torch.testing.assert_close(got, LOSSES[name](x))


def test_masked_targets_are_not_looked_at():
    x, mask = logits(3, 4), torch.tensor([True, False, True])
    want = losses.categorical_nll(x[[0, 2]], torch.tensor([1, 2]))
    torch.testing.assert_close(losses.categorical_nll(x, torch.tensor([1, -100, 2]), mask=mask), want)
    y = torch.tensor([1.0, math.nan, 0.0])
    want = losses.bernoulli_nll(x[0, [0, 2]], y[[0, 2]])
    torch.testing.assert_close(losses.bernoulli_nll(x[0, :3], y, mask=mask), want)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16])
def test_targets_of_any_dtype(dtype):
    x = logits(4)
    y = torch.tensor([0, 1, 1, 0])
    assert torch.equal(losses.bernoulli_nll(x, y.to(dtype)), losses.bernoulli_nll(x, y.double()))
    hot = F.one_hot(y[:2], 2).to(dtype)
    want = losses.categorical_nll(x.view(2, 2), y[:2])
    assert torch.equal(losses.categorical_nll(x.view(2, 2), hot), want)


def test_pos_weight_per_class():
    x, p = logits(3, 2), torch.tensor([2.0, 5.0], dtype=torch.float64)
    y = torch.ones(3, 2)
    want = p * losses.bernoulli_nll(x, y, reduction="none")
    for form in (p, p.view(1, 2)):
        torch.testing.assert_close(losses.bernoulli_nll(x, y, form, reduction="none"), want)


def test_the_gradient_of_a_soft_target():
    x = torch.tensor([2.0, -INF, -1.0], dtype=torch.float64)
    y = torch.tensor([0.3, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    grad = backward(losses.bernoulli_nll(x, y, reduction="none"), y)
    torch.testing.assert_close(grad[[0, 2]], torch.tensor([-2.0, 1.0], dtype=torch.float64))
    assert not grad.isnan().any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="autocast bans binary_cross_entropy on CUDA alone")
def test_the_ban_that_these_losses_do_not_meet():
    x, y = logits(4).cuda(), torch.ones(4, device="cuda")
    with torch.autocast("cuda"):
        with pytest.raises(RuntimeError, match="unsafe to autocast"):
            F.binary_cross_entropy(x.half().sigmoid(), y.half())
        assert losses.bernoulli_nll(x.half(), y).isfinite()
