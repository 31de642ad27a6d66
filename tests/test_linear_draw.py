"""A linear layer, a draw and a codebook in one: values and gradients of the unfused draw, in tiles of any size."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import softdraw
from softdraw import linear_draw
from softdraw.bench.line import Gradient
from softdraw.bench.memory import extra_bytes, kept_bytes
from softdraw.kernels import body, tile_cpu, tile_reference
from softdraw.kernels.tile_reference import Key, Law
from softdraw.operators import linear

RULES = [
    softdraw.ZGR(),
    softdraw.StraightThrough(),
    softdraw.StraightThrough(0.7),
    softdraw.StraightThroughGumbel(0.6),
    softdraw.StraightThroughGumbel(1.0, backward_tau=torch.tensor([0.5, 2.0, 1.0, 0.3]).view(4, 1)),
]
N, D, K, V = (3, 4), 6, 201, 5


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


def operands(dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = ((*N, D), (K, D), (K,), (K, V))
    return [torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype) for shape in shapes]


def unfused(x, weight, bias, codebook, rule, mask=None, **keys):
    """The same with all logits, by the other functions of the library."""
    logits = F.linear(x, weight, bias)
    y = softdraw.draw(softdraw.OneHotCategorical(logits, mask), rule, **keys)
    index = softdraw.gumbel_max(logits, mask=mask, **keys)
    law = logits.double() if mask is None else logits.double().masked_fill(~mask, -math.inf)
    log_prob = law.log_softmax(-1).gather(-1, index.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    return y @ codebook, index, log_prob


def fused(*operands, **named):
    return linear_draw(*operands[:4], rule=operands[4], **named)


def gradients(draw, given, rule, use="value log_prob", **named):
    given = [t.detach().clone().requires_grad_() for t in given]
    value, index, log_prob = draw(*given, rule, **named)
    loss = value.sin().sum() * ("value" in use)
    if "log_prob" in use:
        loss = loss + (log_prob * torch.arange(log_prob.numel()).view(log_prob.shape)).sum()
    made = torch.autograd.grad(loss, given, allow_unused=True)
    return (value, index, log_prob), [torch.zeros_like(t) if g is None else g for t, g in zip(given, made, strict=True)]


def assert_same(ours, theirs, within):
    (value, index, log_prob), made = ours
    assert torch.equal(index, theirs[0][1])
    assert torch.equal(value, theirs[0][0])
    torch.testing.assert_close(log_prob.double(), theirs[0][2].double(), rtol=within, atol=within)
    for mine, other in zip(made, theirs[1], strict=True):
        torch.testing.assert_close(mine, other, rtol=within, atol=within)


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


def test_compiled_without_a_break():
    def loss(x, weight, bias, codebook, tau):
        draw = linear_draw(x, weight, bias, codebook, rule=softdraw.StraightThroughGumbel(), tau=tau, seed=3)
        return draw.value.sin().sum() + draw.log_prob.sum()

    given = [t.requires_grad_() for t in operands(torch.float32)]
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for mine, other in zip(
        torch.autograd.grad(compiled(*given, 0.5), given), torch.autograd.grad(loss(*given, 0.5), given), strict=True
    ):
        torch.testing.assert_close(mine, other)


def test_memory():
    """Kept: the index and the logsumexp of a row. At the peak: a tenth of the logits beyond inputs and gradients."""
    n, d, k = 1024, 32, 8192
    x, weight, codebook = torch.randn(n, d), torch.randn(k, d), torch.randn(k, d)
    for rule in (softdraw.ZGR(), softdraw.StraightThroughGumbel(0.5)):

        def draw(x, weight, codebook, rule=rule):
            return linear_draw(x, weight, None, codebook, rule=rule).value

        Gradient(draw, x[:64], weight[:640], codebook[:640])()  # what the first call of all loads is not ours
        step = Gradient(draw, x, weight, codebook)
        kept, extra = kept_bytes(step), extra_bytes(step)
        assert kept is not None
        assert kept <= 28 * n
        if extra is not None:
            # The result's own bytes are not counted: the value is as large as x.
            assert extra <= n * k * 4 / 10 + 4 * n * d


def test_a_flip_is_a_near_tie():
    """Products of blocks may round a logit otherwise: the best score of all then leads by less than the roundings."""
    g = torch.Generator().manual_seed(0)
    x, weight = torch.randn(512, 256, generator=g), torch.randn(2000, 256, generator=g)
    logits = F.linear(x, weight)
    index, theirs = linear_draw(x, weight, seed=0).index, softdraw.gumbel_max(logits, seed=0)
    scores = logits + softdraw.gumbel_noise(logits.shape, seed=0)
    gap = (scores.gather(-1, theirs.unsqueeze(-1)) - scores.gather(-1, index.unsqueeze(-1))).squeeze(-1)
    bound = 2 * 256 * torch.finfo(torch.float32).eps * (x.abs() @ weight.abs().T).amax(-1)
    assert (index != theirs).sum() <= 2
    assert (gap <= bound).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_compiled_tiles_equal_plain_ones(dtype):
    if body(torch.device("cpu"), dtype).tiles is None:
        pytest.skip("there are no compiled kernels here")
    assert tile_cpu.agrees(dtype)
    g = torch.Generator().manual_seed(3)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    within = 1e-12 if wide == torch.float64 else 1e-5
    for rows, widths in ((1, (1, 17)), (3, (1300, 5, 64)), (70, (16, 31))):
        ours, theirs = (tile_reference.best(rows, torch.device("cpu")) for _ in range(2))
        ids, seed = torch.arange(rows).view(rows, 1) * 7, torch.arange(rows).view(rows, 1)
        start = 2
        for width in widths:
            x = (torch.randn(rows, width, generator=g) * 4).to(dtype)
            mask = torch.rand(rows, width, generator=g) < 0.8
            key = Key(seed if start > 2 else seed[0, 0], ids, mask if start > 2 else None, start)
            tile_cpu.take(ours, x, key)
            tile_reference.take(theirs, x, key)
            torch.testing.assert_close(ours.numbers, theirs.numbers, rtol=within, atol=within)
            assert torch.equal(ours.column, theirs.column)
            law = Law(torch.full((rows, 1), 3.0, dtype=wide), torch.full((rows, 1), 0.5, dtype=wide))
            h, less = torch.randn(rows, width, generator=g).to(dtype), torch.randn(rows, 1, generator=g).to(wide)
            mine = tile_cpu.turn(x.clone(), h.clone(), mask, law, 0.5, less)
            same = tile_reference.turn(x.clone(), h.clone(), mask, law, 0.5, less)
            torch.testing.assert_close(mine[0], same[0], rtol=2 * torch.finfo(dtype).eps + within, atol=within)
            torch.testing.assert_close(mine[1], same[1], rtol=within, atol=10 * within * width)
            start += width


@pytest.mark.parametrize("shared", [False, True])
def test_a_codebook_draws_the_same_without_its_logits(shared):
    torch.manual_seed(0)
    quantise = softdraw.nn.Codebook(6, 40, 8, groups=2, rule=softdraw.StraightThroughGumbel(0.7), shared=shared)
    x, mask = torch.randn(3, 4, 6, requires_grad=True), torch.rand(2, 40) < 0.8
    for keys in ({"seed": 3, "rows": 5}, {"seed": torch.tensor([1, 2, 3])}):
        choice, ours = quantise(x, mask=mask, **keys), quantise.linear_draw(x, mask=mask, **keys)
        assert torch.equal(ours.index, choice.index)
        assert torch.equal(ours.value, choice.value)
        one = F.one_hot(choice.index, 40).float()
        torch.testing.assert_close(ours.log_prob, choice.law.log_prob(one))
        every = [x, *quantise.parameters()]
        for mine, theirs in zip(
            torch.autograd.grad(ours.value.sin().sum(), every),
            torch.autograd.grad(choice.value.sin().sum(), every),
            strict=True,
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    with pytest.raises(TypeError, match=r"linear_draw.*inputs=None.*logits="):
        softdraw.nn.Codebook(None, 40, 8).linear_draw(x)


X, W = torch.zeros(3, 4), torch.zeros(7, 4)
CASES = [
    (lambda: linear_draw(torch.zeros(()), W), ValueError, ["x", "0-d", "(..., D)"]),
    (lambda: linear_draw(X.long(), W), TypeError, ["x", "torch.int64", "x.float()"]),
    (lambda: linear_draw(X, W[:, :3]), ValueError, ["weight", "(K, 4)", "(7, 3)"]),
    (lambda: linear_draw(X, W[:0]), ValueError, ["weight", "one category", "(0, 4)"]),
    (lambda: linear_draw(X, W.double()), TypeError, ["weight", "torch.float32", "torch.float64"]),
    (lambda: linear_draw(X, W, torch.zeros(6)), ValueError, ["bias", "(7,)", "(6,)"]),
    (lambda: linear_draw(X, W, None, torch.zeros(6, 2)), ValueError, ["codebook", "(7, V)", "(6, 2)"]),
    (lambda: linear_draw(X, W.to("meta")), ValueError, ["weight", "meta", "cpu"]),
    (lambda: linear_draw(X, W, rule=softdraw.ReinMax()), TypeError, ["rule", "ZGR", "ReinMax", "softdraw.draw"]),
    (lambda: linear_draw(X, W, rule=softdraw.GumbelRao(0.5, 3)), TypeError, ["rule", "ZGR", "GumbelRao"]),
    (lambda: linear_draw(X, W, rule=softdraw.ZGR), TypeError, ["rule", "ZGR()"]),
    (lambda: linear_draw(X, W, tau=0.5), ValueError, ["tau=0.5", "ZGR", "leave it out"]),
    (lambda: linear_draw(X, W, rule=softdraw.StraightThrough(), tau=-1.0), ValueError, ["tau", "positive", "-1.0"]),
    (
        lambda: linear_draw(X, W, rule=softdraw.StraightThroughGumbel(backward_tau=2.0), tau=0.5),
        ValueError,
        ["tau", "backward_tau"],
    ),
    (lambda: linear_draw(X, W, mask=torch.ones(3, dtype=torch.bool)), ValueError, ["mask", "(3,)", "(3, 7)"]),
    (lambda: linear_draw(X, W, rows=torch.arange(2)), ValueError, ["rows", "(2,)", "(3,)"]),
    (lambda: linear_draw(X, W, col_start=2**32), ValueError, ["col_start", "7 columns"]),
    (lambda: linear_draw(X, W, seed=0.5), TypeError, ["seed", "float"]),
]


@pytest.mark.parametrize(("call", "kind", "words"), CASES)
def test_errors_name_what_is_wrong(call, kind, words):
    with pytest.raises(kind) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)
