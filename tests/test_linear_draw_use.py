"""A linear layer and a draw in one: its graph, memory, near ties, tiles, module and errors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from linear_cases import operands

import softdraw
from softdraw import linear_draw
from softdraw.bench.line import Gradient
from softdraw.bench.memory import extra_bytes, kept_bytes
from softdraw.kernels import body, tile_cpu, tile_reference
from softdraw.kernels.tile_reference import Key, Law


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
