"""A row or bit that has no draw (NaN, or +inf for a row) has no gradient either, with every rule: both are NaN, as in
``gumbel_softmax``, and rows beside it know nothing of it."""

from __future__ import annotations

import math

import pytest
import torch

import softdraw
from softdraw.rules import fused
from tests.methods import PATHWISE, label, one_hot_logits

NAN, INF = math.nan, math.inf
ROWS, KEPT = 8, [0, 1]  # of these the last six are broken, alone or beside categories that are forbidden
CHOSEN = torch.arange(ROWS).unsqueeze(1) % 5


def logits(dtype=torch.float32):
    x = one_hot_logits(ROWS, 5, dtype=dtype)
    x[2, 3], x[3, 0], x[4, 1], x[5, 2], x[6, 4], x[7] = NAN, INF, NAN, INF, INF, NAN
    x[4, 3], x[5, [0, 1]] = -INF, -INF
    return x


def mask():
    allowed = torch.ones(ROWS, 5, dtype=torch.bool)
    allowed[1, 2] = allowed[6, [0, 1]] = allowed[7, 2] = False
    return allowed


def gradient(y, x):
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype)
    return torch.autograd.grad(y, x, g)[0]


def directly(rule, x):
    return softdraw.draw(softdraw.OneHotCategorical(x, mask()), rule, seed=0)


def several(rule, x):
    return softdraw.draw(softdraw.OneHotCategorical(x, mask()), rule, (2,), seed=0)[1]


def given(rule, x):
    allowed = mask() & (x != -INF)
    chosen = torch.where(allowed.gather(1, CHOSEN).squeeze(1), CHOSEN.squeeze(1), allowed.int().argmax(-1))
    value = torch.nn.functional.one_hot(chosen, 5).to(x.dtype)
    return softdraw.draw(softdraw.OneHotCategorical(x, mask()), rule, value=value, seed=0)


def mapped(rule, x):
    def one(x, allowed):
        return softdraw.draw(softdraw.OneHotCategorical(x, allowed), rule, seed=0)

    return torch.func.vmap(one, randomness="same")(x, mask())


def twice(rule, x):
    """Through the formula that a second derivative takes."""
    y = directly(rule, x)
    g = torch.ones_like(y, requires_grad=True)
    return torch.autograd.grad(y, x, g, create_graph=True)[0] + 0 * y


@pytest.mark.parametrize("way", [directly, several, given, mapped, twice], ids=lambda f: f.__name__)
@pytest.mark.parametrize("rule", PATHWISE, ids=label)
def test_a_broken_row_is_nan_and_its_gradient_too(rule, way):
    x = logits().requires_grad_()
    ours = softdraw.gumbel_softmax(x, 0.7, hard=True, seed=0, mask=mask())
    assert gradient(ours, x).isnan().all(-1).tolist() == [False] * 2 + [True] * 6  # what every rule is held to
    y = way(rule, x)
    dx = y if way is twice else gradient(y, x)
    assert torch.equal(dx.isnan(), ours.isnan())
    assert not dx[1, 2]
    if way is not given:
        assert torch.equal(y.isnan(), ours.isnan())
    if way is directly:
        whole = x.detach().nan_to_num(0, 0, 0).requires_grad_()
        assert torch.equal(dx[KEPT], gradient(directly(rule, whole), whole)[KEPT])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rule", [rule for rule in PATHWISE if rule.kernel() is not None], ids=label)
def test_the_formula_and_other_dtypes_have_the_same_rows(rule, dtype, monkeypatch):
    for plain in (None, lambda x: False):
        if plain is not None:
            monkeypatch.setattr(fused, "is_plain", plain)
        x = logits(dtype).requires_grad_()
        y = directly(rule, x)
        dx = gradient(y, x)
        assert y.isnan().all(-1).tolist() == dx.isnan().all(-1).tolist() == [False] * 2 + [True] * 6
        assert dx[KEPT].isfinite().all()
        assert not dx[1, 2]


@pytest.mark.parametrize("samples", [(), (3,)])
@pytest.mark.parametrize("rule", PATHWISE, ids=label)
def test_a_nan_bit_is_nan_and_one_that_is_certain_or_forbidden_has_no_gradient(rule, samples):
    theta = torch.tensor([0.3, NAN, INF, -INF, NAN, INF, -0.2], requires_grad=True)
    allowed = torch.tensor([True, True, True, True, False, False, True])
    y = softdraw.draw(softdraw.Bernoulli(theta, allowed), rule, samples, seed=0)
    dx = gradient(y, theta)
    for out in (dx, *y.view(-1, 7)):
        assert out.isnan().tolist() == [False, True, False, False, False, False, False]
    assert not dx[2:6].any()
    assert dx[[0, 6]].all()
    assert all(bits[2:6].tolist() == [1, 0, 0, 0] for bits in y.view(-1, 7))


def test_forward_mode_has_the_same_rows():
    x = logits(torch.float64)
    y, tangent = torch.func.jvp(
        lambda x: softdraw.draw(softdraw.OneHotCategorical(x, mask()), softdraw.ZGR(), seed=0),
        (x,),
        (torch.ones_like(x),),
    )
    assert y.isnan().all(-1).tolist() == tangent.isnan().all(-1).tolist() == [False] * 2 + [True] * 6


def decisions(x):
    return [softdraw.gumbel_softmax(x, 0.7, hard, mask=mask(), noise=False) for hard in (False, True)]


def by_torch_func(x):
    pairs = [torch.func.vjp(lambda x, i=i: decisions(x)[i], x) for i in range(2)]
    return [*(y for y, _ in pairs), *(pull(weights())[0] for _, pull in pairs)]


def in_a_graph(x):
    y = torch.compile(decisions, fullgraph=True, backend="aot_eager")(x.requires_grad_())
    return [*y, *(torch.autograd.grad(v, x, weights(), retain_graph=True)[0] for v in y)]


def weights():
    return torch.randn(ROWS, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("way", [by_torch_func, in_a_graph], ids=lambda f: f.__name__)
def test_a_decision_in_torchs_operations_has_the_same_rows(way):
    """Forbidden categories of a broken row have the gradient NaN too, as in eager code."""
    x = logits().requires_grad_()
    y = decisions(x)
    want = [*y, *(torch.autograd.grad(v, x, weights())[0] for v in y)]
    assert all(t.isnan().all(-1).tolist() == [False] * 2 + [True] * 6 for t in want)
    for ours, theirs in zip(way(logits()), want, strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)
