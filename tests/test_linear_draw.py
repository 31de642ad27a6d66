"""A linear layer, a draw and a codebook in one: values and gradients of the unfused draw, in tiles of any size."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from linear_cases import RULES, D, K, N, V, assert_same, fused, gradients, operands, unfused

import softdraw
from softdraw import linear_draw
from softdraw.kernels import body
from softdraw.operators import linear


@pytest.fixture(params=["compiled", "plain"])
def tiles(request, monkeypatch):
    """Tiles of 5 rows and 64 columns, so that there are several and the last ones are smaller; of each body."""
    if request.param == "plain":
        monkeypatch.setattr(linear, "fast", lambda device, dtype: None)
        monkeypatch.setattr("softdraw.operators.linear_backward.fast", lambda device, dtype: None)
    elif body(torch.device("cpu")).tiles is None:
        pytest.skip("there are no compiled kernels here")
    for name, value in {"_ROWS": 5, "_WIDTH": 64, "_TILE": 320, "_PART": 1}.items():
        monkeypatch.setattr(linear, name, value)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_it_has_the_values_and_gradients_of_the_unfused_draw(rule, tiles):
    mask = torch.rand(4, K, generator=torch.Generator().manual_seed(1)) < 0.7
    seeds = torch.tensor([5, 6, 7])
    for dtype, within in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        for use, keys in (
            ("value", {"seed": 3, "rows": 11, "mask": mask}),
            ("log_prob", {"seed": 3}),
            ("value log_prob", {"seed": seeds, "mask": mask[0]}),
        ):
            given = operands(dtype)
            assert_same(
                gradients(fused, given, rule, use, **keys), gradients(unfused, given, rule, use, **keys), within
            )


def test_tau_takes_the_place_of_the_rules():
    given, tau = operands(), torch.tensor([0.5, 2.0, 1.0, 0.3]).view(4, 1)
    for kind in (softdraw.StraightThrough, softdraw.StraightThroughGumbel):
        for t in (0.4, tau):
            ours = gradients(fused, given, kind(), tau=t, seed=1)
            assert_same(ours, gradients(unfused, given, kind(t), seed=1), 1e-12)


def test_zgr_is_its_formula():
    """By hand in float64: p (h - <p, h>) / 2 + <h, D - p> (D - p) / 2, and D - p for the log-probability."""
    x, weight, bias, codebook = operands()
    u, g = torch.randn(*N, V, dtype=torch.float64), torch.randn(*N, dtype=torch.float64)
    given = [t.requires_grad_() for t in (x, weight, bias, codebook)]
    value, index, log_prob = linear_draw(*given, seed=2)
    made = torch.autograd.grad((value * u).sum() + (log_prob * g).sum(), given)
    with torch.no_grad():
        p, h, one = F.linear(x, weight, bias).softmax(-1), u @ codebook.T, F.one_hot(index, K).double()
        v = p * (h - (p * h).sum(-1, keepdim=True)) / 2 + ((one - p) * h).sum(-1, keepdim=True) * (one - p) / 2
        v = v + g.unsqueeze(-1) * (one - p)
        rows = v.flatten(0, 1)
        truth = v @ weight, rows.T @ x.flatten(0, 1), rows.sum(0), one.flatten(0, 1).T @ u.flatten(0, 1)
    for mine, right in zip(made, truth, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-12, atol=1e-12)


def test_without_a_codebook_there_is_no_value():
    x, weight, bias, _ = operands()
    for b in (bias, None):
        layer = [t.detach().requires_grad_() for t in (x, weight, b) if t is not None]
        value, index, log_prob = linear_draw(*layer, seed=2, col_start=3)
        logits = F.linear(*layer)
        assert value is None
        assert torch.equal(index, softdraw.gumbel_max(logits, seed=2, col_start=3))
        right = logits.log_softmax(-1).gather(-1, index.unsqueeze(-1)).sum()
        for mine, other in zip(
            torch.autograd.grad(log_prob.sum(), layer), torch.autograd.grad(right, layer), strict=True
        ):
            torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_a_part_of_the_batch_and_of_the_categories_draws_what_it_draws_in_the_whole():
    x, weight, bias, codebook = operands()
    flat = x.flatten(0, 1)
    whole = linear_draw(flat, weight, bias, codebook, seed=4)
    part = linear_draw(flat[5:9], weight, bias, codebook, seed=4, rows=5)
    assert all(torch.equal(a[5:9], b) for a, b in zip(whole, part, strict=True))
    ids = torch.tensor([7, 2, 11])
    chosen = linear_draw(flat[ids], weight, bias, codebook, seed=4, rows=ids)
    assert torch.equal(chosen.index, whole.index[ids])
    generator = torch.Generator().manual_seed(1)
    first = linear_draw(x, weight, generator=generator).index
    assert not torch.equal(first, linear_draw(x, weight, generator=generator).index)
    assert torch.equal(first, linear_draw(x, weight, generator=generator.manual_seed(1)).index)


def test_rows_without_a_draw(tiles):
    x, weight, bias, codebook = operands(torch.float32)
    x = x.flatten(0, 1)
    x[2, 0], x[4, 1], x[9, 0] = math.nan, math.inf, -math.inf
    weight[:, 1], weight[:, 0] = weight[:, 1].abs(), weight[:, 0].abs() + 1
    mask = torch.ones(12, K, dtype=torch.bool)
    mask[5] = False
    for rule in RULES[:4]:
        given = [t.clone().requires_grad_() for t in (x, weight, bias, codebook)]
        value, index, log_prob = linear_draw(*given, rule=rule, mask=mask, seed=0)
        theirs = unfused(x, weight, bias, codebook, rule, mask, seed=0)
        assert torch.equal(index, theirs[1])
        assert index[[2, 4, 5, 9]].tolist() == [-1] * 4
        assert value[[2, 4]].isnan().all()
        assert log_prob[[2, 4]].isnan().all()
        assert (value[[5, 9]] == 0).all()
        assert (log_prob[[5, 9]] == -math.inf).all()
        (value.sum() + log_prob[[0, 2, 4]].sum()).backward()
        dx = given[0].grad
        assert dx[[2, 4]].isnan().all()
        assert (dx[5] == 0).all()
        alone = [t.clone().requires_grad_() for t in (x[:1], weight, bias, codebook)]
        first = linear_draw(*alone, rule=rule, seed=0)
        (first.value.sum() + first.log_prob.sum()).backward()
        torch.testing.assert_close(dx[:1], alone[0].grad)
        assert given[3].grad.isfinite().all()


def test_an_empty_batch_and_one_vector():
    for shape in ((0, D), (2, 0, D), (D,)):
        x, rest = torch.randn(shape, dtype=torch.float64), operands()[1:]
        given = [t.requires_grad_() for t in (x, *rest)]
        value, index, log_prob = linear_draw(*given, seed=0)
        assert value.shape == (*shape[:-1], V)
        assert index.shape == log_prob.shape == shape[:-1]
        made = torch.autograd.grad(value.sum() + log_prob.sum(), given)
        if not x.numel():
            assert all((g == 0).all() for g in made)
            continue
        logits = F.linear(*given[:3])
        right = softdraw.draw(logits, seed=0) @ given[3]
        right = right.sum() + logits.log_softmax(-1)[softdraw.gumbel_max(logits, seed=0)]
        for mine, other in zip(made, torch.autograd.grad(right, given), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_near_to_the_truth_as_the_unfused_draw(dtype, tiles):
    """The truth is float64 at the rounded operands and the same index."""
    given = operands(dtype)
    for rule in (softdraw.ZGR(), softdraw.StraightThroughGumbel(0.6)):
        ours, theirs = (gradients(f, given, rule, seed=3) for f in (fused, unfused))
        assert torch.equal(ours[0][1], theirs[0][1])
        assert ours[0][0].dtype == dtype
        assert ours[0][2].dtype == torch.float32
        at = [t.double() for t in given]
        (_, index, _), truth = gradients(unfused, at, rule, seed=3)
        assert torch.equal(index, ours[0][1])
        for mine, other, right in zip(ours[1], theirs[1], truth, strict=True):
            error, size = ((t.double() - right).norm() for t in (mine, other)), right.norm()
            mine, other = error
            assert mine <= 1.3 * other + 2 * torch.finfo(dtype).eps * size


def test_many_rows_at_one_code_are_summed_before_they_are_rounded():
    """Ones, 3000 of them, stop at 256 where each sum is rounded to bfloat16."""
    x, weight = torch.zeros(3000, 2, dtype=torch.bfloat16), torch.zeros(3, 2, dtype=torch.bfloat16)
    bias = torch.tensor([-50.0, 0.0, -50.0], dtype=torch.bfloat16)
    codebook = torch.randn(3, 1, dtype=torch.bfloat16, requires_grad=True)
    linear_draw(x, weight, bias, codebook, seed=0).value.sum().backward()
    assert codebook.grad.flatten().tolist() == [0, torch.tensor(3000.0).bfloat16().item(), 0]


def test_autocast_computes_in_its_dtype_and_gives_gradients_in_the_parameters():
    given = [t.requires_grad_() for t in operands(torch.float32)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, index, log_prob = linear_draw(*given, seed=3)
        assert torch.equal(index, softdraw.gumbel_max(F.linear(*given[:3]), seed=3))
    low = [t.detach().bfloat16().requires_grad_() for t in given]
    same = linear_draw(*low, seed=3)
    assert value.dtype == torch.bfloat16
    assert torch.equal(value, same.value)
    ours = torch.autograd.grad(value.float().sum() + log_prob.sum(), given)
    theirs = torch.autograd.grad(same.value.float().sum() + same.log_prob.sum(), low)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, other.float(), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("rule", [softdraw.ZGR(), softdraw.StraightThroughGumbel(0.7)], ids=repr)
def test_second_derivatives_and_torch_func_are_those_of_the_unfused_draw(rule):
    def loss(draw):
        def f(*given):
            value, _, log_prob = draw(*given, rule, seed=3)
            return value.sin().sum() + log_prob.sin().sum()

        return f

    given, second = [t.requires_grad_() for t in operands()], []
    for draw in (fused, unfused):
        first = torch.autograd.grad(loss(draw)(*given), given, create_graph=True)
        second.append(torch.autograd.grad(sum(t.square().sum() for t in first), given))
    for mine, other in zip(*second, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)
    made = torch.func.grad(loss(fused), argnums=(0, 1, 2, 3))(*(t.detach() for t in given))
    for mine, other in zip(made, torch.autograd.grad(loss(fused)(*given), given), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)
    x, *layer = (t.detach() for t in given)
    mapped = torch.func.vmap(lambda x: linear_draw(x, *layer, seed=1).value)(x)
    assert torch.equal(mapped, torch.stack([linear_draw(t, *layer, seed=1).value for t in x]))
