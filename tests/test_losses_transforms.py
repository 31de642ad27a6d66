"""Every loss under every transform of torch: against the same formula in stock torch, differentiated backward only."""

import doctest
import math
from pathlib import Path

import pytest
import torch
from loss_cases import EVERY, LOSSES, logits
from torch.autograd import forward_ad, functional
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

from softdraw import losses

INF = math.inf


def backward(loss, x):
    return torch.autograd.grad(loss.sum(), x)[0]


def compiled(function):
    torch.compiler.reset()  # one limit of graphs counts for all lambdas of a line
    return torch.compile(function, fullgraph=True, backend="aot_eager")


def reference(stock):
    """Value, gradient and Hessian of the stock formula, by double backward."""
    x = logits(3, 4)
    return stock(x), functional.jacobian(stock, x), functional.hessian(stock, x)


def along(f, x, v):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(forward_ad.make_dual(x, v))).tangent


HESSIANS = {
    "jacfwd of jacrev": hessian,
    "jacrev of jacrev": lambda f: jacrev(jacrev(f)),
    "jacrev of jacfwd": lambda f: jacrev(jacfwd(f)),
    "jacfwd of jacfwd": lambda f: jacfwd(jacfwd(f)),
    "double backward": lambda f: lambda x: functional.hessian(f, x),
    "mapped double backward": lambda f: lambda x: functional.hessian(f, x, vectorize=True),
    "backward of forward": lambda f: (
        lambda x: functional.hessian(f, x, vectorize=True, outer_jacobian_strategy="forward-mode")
    ),
}


@pytest.mark.parametrize("how", HESSIANS)
@pytest.mark.parametrize("name", EVERY)
def test_hessian(name, how):
    loss, stock = EVERY[name]
    torch.testing.assert_close(HESSIANS[how](loss)(logits(3, 4)), reference(stock)[2], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", EVERY)
def test_value_and_first_derivative(name):
    loss, stock = EVERY[name]
    x, v = logits(3, 4), logits(6, 4)[3:]
    value, gradient, _ = reference(stock)
    slope = (gradient * v).sum()
    for got, want in (
        (loss(x), value),
        (jacrev(loss)(x), gradient),
        (jacfwd(loss)(x), gradient),
        (jvp(loss, (x,), (v,)), (value, slope)),
        (along(loss, x, v), slope),
        (vmap(lambda t: jvp(loss, (x,), (t,))[1])(torch.stack([v, -v])), torch.stack([slope, -slope])),
    ):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", EVERY)
def test_compiled(name):
    loss, stock = EVERY[name]
    x = logits(3, 4).requires_grad_()
    value, gradient, _ = reference(stock)
    close = {"rtol": 1e-10, "atol": 1e-12}
    got = compiled(loss)(x)
    torch.testing.assert_close(got, value, **close)
    torch.testing.assert_close(backward(got, x), gradient, **close)
    torch.testing.assert_close(compiled(grad(loss))(x.detach()), gradient, **close)


@pytest.mark.parametrize("name", EVERY)
def test_compiled_forward_mode(name):
    loss, stock = EVERY[name]
    x, v = logits(3, 4), logits(6, 4)[3:]
    value, gradient, _ = reference(stock)
    close = {"rtol": 1e-10, "atol": 1e-12}
    got = compiled(lambda x: jvp(loss, (x,), (v,)))(x)
    torch.testing.assert_close(got, (value, (gradient * v).sum()), **close)


@pytest.mark.parametrize("name", LOSSES)
def test_finite_differences(name):
    x = logits(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(LOSSES[name], x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(LOSSES[name], x, check_fwd_over_rev=True)


@pytest.mark.parametrize("name", EVERY)
def test_vmap(name):
    loss = EVERY[name][0]
    many = torch.stack([logits(3, 4), logits(3, 4) - 1, logits(6, 4)[3:]])
    values, gradients = [torch.stack([f(x) for x in many]) for f in (loss, grad(loss))]
    for in_dim in range(3):
        moved = many.movedim(0, in_dim)
        torch.testing.assert_close(vmap(loss, in_dims=in_dim)(moved), values)
        torch.testing.assert_close(vmap(grad(loss), in_dims=in_dim)(moved), gradients)
    torch.testing.assert_close(vmap(vmap(loss))(many[None]), values[None])


@pytest.mark.parametrize("in_dim", [0, 1])
def test_values_are_checked_inside_transforms(in_dim):
    x, y = logits(3, 4), torch.full((3, 4), 0.5, dtype=torch.float64)
    y[2, 1] = 7
    with pytest.raises(ValueError, match="target must be from 0 to 1, got 7"):
        vmap(losses.bernoulli_nll, in_dims=(in_dim, in_dim))(x, y)
    with pytest.raises(ValueError, match="target must be from 0 to 1, got 7"):
        vmap(losses.bernoulli_nll, in_dims=(None, in_dim))(x[0, :3] if in_dim else x[0], y)
    with pytest.raises(ValueError, match="target must be from 0 to 1, got 7"):
        jvp(lambda y: losses.bernoulli_nll(x, y), (y,), (y,))
    with pytest.raises(ValueError, match="target must be an index from 0 to 3, got 9"):
        jacrev(lambda x: losses.categorical_nll(x, torch.tensor([0, 9, 1])))(x)


# Infinite logits. 1e4 is as good as infinite in float64: exp(-1e4) is 0.


def far(x):
    return torch.nan_to_num(x, nan=math.nan, posinf=1e4, neginf=-1e4)


ROWS = torch.tensor(
    [
        [INF, 0.0, 1.0, -2.0],
        [0.0, -INF, 1.0, 2.0],
        [INF, -INF, 1.0, 0.0],
        [INF, INF, 0.0, -INF],
        [-INF, -INF, 3.0, -INF],
        [INF, INF, INF, INF],
        [2.0, 1.0, 0.0, -1.0],
    ],
    dtype=torch.float64,
)


@pytest.mark.parametrize("name", LOSSES)
def test_infinite_logits_give_the_limit_in_value_and_all_derivatives(name):
    v = logits(len(ROWS), 4)
    loss = LOSSES[name]
    value, limit = loss(ROWS), loss(far(ROWS))
    torch.testing.assert_close(value, limit if limit < 1e3 else torch.full_like(limit, INF))
    want = jacrev(loss)(far(ROWS)), hessian(loss)(far(ROWS))
    assert all(d.isfinite().all() for d in want)
    for f in (jacrev(loss), jacfwd(loss), compiled(grad(loss)), lambda x: backward(loss(x), x)):
        torch.testing.assert_close(f(ROWS.clone().requires_grad_()), want[0])
    for how in HESSIANS.values():
        torch.testing.assert_close(how(loss)(ROWS), want[1])
    torch.testing.assert_close(jvp(loss, (ROWS,), (v,))[1], (want[0] * v).sum())
    torch.testing.assert_close(vmap(grad(loss))(ROWS[None])[0], want[0])


BROKEN = {"nan": [math.nan, 0.0, 1.0, 2.0], "nan and inf": [math.nan, INF, -INF, 0.0]}
EACH = {name: lambda x, loss=loss: loss(x, reduction="none") for name, loss in LOSSES.items()}
EACH["diversity"] = lambda x: losses.diversity(x.unsqueeze(1), group_dim=0, reduction="none")
EACH["load_balance"] = lambda x: losses.load_balance(x.unsqueeze(1), group_dim=0, reduction="none")


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("name", LOSSES)
def test_a_nan_stays_in_its_row(name, broken):
    """A penalty on the mean law keeps it in its group, ``bernoulli_nll`` in its element."""
    loss = EACH[name]
    row = torch.tensor([BROKEN[broken]], dtype=torch.float64)
    x = torch.cat([ROWS, row])
    torch.testing.assert_close(loss(x)[:-1], loss(ROWS))
    assert torch.equal(loss(x)[-1].isnan(), row[0].isnan() if name == "bernoulli_nll" else torch.tensor(True))
    for derivative in (jacrev, jacfwd):
        got, want = (derivative(lambda x: loss(x)[: len(ROWS)].sum())(both) for both in (x, ROWS))
        torch.testing.assert_close(got[:-1], want)
        assert want.isfinite().all()


DEAD = {"bernoulli_nll": INF, "categorical_nll": INF, "cross_entropy": INF, "diversity": 3 / 4, "keep_ratio": 0.16}


@pytest.mark.parametrize("name", LOSSES)
def test_a_row_of_minus_infinity_alone(name):
    """It has no law, so its loss has no gradient; each bit has a law, which is 0 with certainty."""
    x = torch.cat([torch.full((1, 4), -INF, dtype=torch.float64), ROWS[-1:]])
    loss = EACH[name]
    got = loss(x)[0]
    torch.testing.assert_close(got, torch.full_like(got, DEAD.get(name, 0.0)))
    assert loss(x)[1].isfinite().all()
    slope = -0.3 if name == "bernoulli_nll" else 0.0  # sigmoid(-inf) - target
    for derivative in (jacrev, jacfwd):
        got = derivative(lambda x: loss(x)[0].sum())(x)
        torch.testing.assert_close(got, torch.tensor([[slope] * 4, [0.0] * 4], dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float16])
def test_tensors_of_any_floating_dtype_are_computed_in_float32(dtype):
    x = logits(3, 4, dtype=torch.float32).to(dtype)
    half, ones, eye = (torch.full((3, 4), a).to(dtype) for a in (0.5, 1.0, 0.25))
    calls = [
        lambda c: losses.bernoulli_nll(c(x), c(half), c(ones), weight=c(half)),
        lambda c: losses.categorical_nll(c(x), c(eye), weight=c(half)[:, 0]),
        lambda c: losses.kl_to_prior(c(x), c(half)),
        lambda c: losses.entropy(c(x), weight=c(half)[:, 0]),
        lambda c: losses.kl_to_uniform(c(x)),
        lambda c: losses.diversity(c(x), weight=c(half)[:, 0]),
        lambda c: losses.load_balance(c(x), c(ones)),
        lambda c: losses.load_balance(c(x)),
        lambda c: losses.keep_ratio(c(x), 0.5, weight=c(half)),
    ]
    for call in calls:
        got, want = call(lambda t: t), call(lambda t: t.float())
        assert got.dtype == torch.float32
        assert torch.equal(got, want)


def test_the_page_on_losses_prints_what_it_says():
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    page = Path(__file__).parents[1] / "docs" / "losses.md"
    assert doctest.testfile(str(page), module_relative=False, optionflags=flags) == doctest.TestResults(0, 22)
