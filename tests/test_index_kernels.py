"""The compiled passes of index draws equal the reference: over shapes, strides, dtypes, masks and special values."""

from __future__ import annotations

import math

import kernel_cases
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from leaves import make

from softdraw.arguments import Draw, compute_dtype
from softdraw.kernels import cpu, native, reference
from softdraw.kernels.pass_reference import Rows
from softdraw.operators import draws
from softdraw.operators.indices import said

pytestmark = pytest.mark.skipif(native.library() is None, reason="the kernels are not compiled here")
fuzz = settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
cases = given(case=kernel_cases.CASES, t=st.sampled_from((0.0, 0.3, 1.0, 20.0, "as tau")))


def at_temperature(case: kernel_cases.Case, t: float | str) -> Draw:
    return case.draw if t == "as tau" else case.draw._replace(tau=t)


def streams_of(draw: Draw, samples: int) -> torch.Tensor:
    return torch.arange(samples).view(-1, *[1] * draw.logits.dim())


def scores_of(draw: Draw, samples: int) -> torch.Tensor:
    """Scores with the kernels' noise, whose last bit is not that of torch."""
    dtype = compute_dtype(draw.logits.dtype)
    ids = reference.draws.row_ids(draw.logits.shape[:-1], draw.logits.device) if draw.rows is None else draw.rows
    cols = draw.logits.shape[-1]
    noise = [cpu.gumbel(draw.seed, ids, cols, draw.col_start, torch.tensor(s), dtype) for s in range(samples)]
    t = draw.tau if not isinstance(draw.tau, torch.Tensor) else draw.tau.to(dtype)
    s = draw.logits.to(dtype) + t * torch.stack(noise)
    return s if draw.mask is None else s.masked_fill(~draw.mask, -math.inf)


@cases
@fuzz
def test_indices_are_those_of_the_scores(case, t):
    draw = at_temperature(case, t)
    s = scores_of(draw, 2)
    top, order = s.sort(dim=-1, descending=True, stable=True)
    bad = (s.isnan() | (s == math.inf)).any(-1, keepdim=True)
    order = torch.where(bad | (top == -math.inf), -1, order)
    assert torch.equal(cpu.tempered(draw, 2), order[..., 0])
    for k in (0, 1, 3, 50):
        want = torch.nn.functional.pad(order[..., :k], (0, max(0, k - order.shape[-1])), value=-1)
        assert torch.equal(cpu.topk(draw, 2, k), want)


@cases
@fuzz
def test_what_the_law_says_is_the_reference(case, t):
    draw = at_temperature(case, t)
    at, chosen, numbers = cpu.drawn(draw, 2)
    x = reference.draws.numerics.masked(draw.logits.double(), draw.mask)
    want = x.expand(2, *x.shape).gather(-1, at.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    bad = (x.isnan() | (x == math.inf)).any(-1)
    # Of a row whose scores overflow nothing is drawn, whatever its logits are.
    drawn = at >= 0
    assert torch.equal(chosen[drawn], want[drawn])
    assert chosen[bad.expand_as(at)].isnan().all()
    fine = drawn[0]
    log_p = x[fine].log_softmax(-1)
    top = x[fine].amax(-1)
    exact = torch.stack(
        (top, (x[fine] - top.unsqueeze(-1)).logsumexp(-1), (log_p.exp() * log_p.clamp_min(-1e9)).sum(-1)), -1
    )
    within = 1e-12 if draw.logits.dtype == torch.float64 else 1e-6
    torch.testing.assert_close(numbers[fine], exact, rtol=within, atol=4 * within)
    nothing = (x == -math.inf).all(-1)
    assert (numbers[nothing] == 0).all()


@cases
@fuzz
def test_the_gradient_is_that_of_the_formula(case, t):
    draw, samples = at_temperature(case, t), 3
    at, _, numbers = cpu.drawn(draw, samples)
    if draw.logits.numel() == 0 or (at[0] >= 0).sum() == 0:
        return
    g = torch.Generator().manual_seed(1)
    wide = compute_dtype(draw.logits.dtype)
    grads = [torch.randn(shape, generator=g, dtype=wide) for shape in (at.shape, at.shape[1:])]
    arriving = torch.cat((grads[0], grads[1].unsqueeze(0)))
    rows = Rows(draw.logits, mask=draw.mask, category=at)
    got = cpu.passes.drawn_backward(rows, arriving, numbers, "none", (True, False))[0]
    leaf = draw.logits.detach().double().requires_grad_()
    (want,) = torch.autograd.grad(said(leaf, draw.mask, at), leaf, [x.double() for x in grads])
    fine = at[0] >= 0
    eps = torch.finfo(got.dtype).eps
    size = 1e-6 * (1 + want[fine].abs().amax(-1, keepdim=True)) if wide == torch.float32 else 1e-12
    assert ((got[fine].double() - want[fine]).abs() <= size + eps * want[fine].abs()).all()
    if draw.mask is not None:
        assert (got[fine][~draw.mask[fine]] == 0).all()


@pytest.mark.parametrize("isa", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_every_instruction_set_draws_the_same(isa):
    """Integers and the order of scores; the sums agree to their last digits."""
    here = native.isa()
    x, seed = torch.randn(20, 5000, generator=torch.Generator().manual_seed(0)), torch.tensor(5)

    def results():
        draw = Draw(x, 0.6, seed)
        return cpu.tempered(draw, 2), cpu.topk(draw, 2, 100), cpu.drawn(draw, 2)[2]

    want = results()
    try:
        native.use_isa(isa)
    except ValueError:
        pytest.skip(f"this processor has no {isa}")
    try:
        got = results()
    finally:
        native.use_isa(here)
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])
    torch.testing.assert_close(got[2], want[2], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rows", "cols", "first"), [(5, 10, 0), (3, 100, 3), (2, 1000, 129), (1, 17_003, 8)])
def test_the_best_score_is_bit_for_bit_that_of_logits_and_noise(each_body, dtype, rows, cols, first):
    """So that blocks of a row, however wide, compare their scores as one pass over the row does."""
    x, seed, mask = make((rows, cols), dtype), torch.tensor(7), make((rows, cols), seed=1) > -0.5
    x[-1, 2], mask[-1, 2] = (torch.nan, True) if rows > 1 else (0.0, True)
    mask[:-1][2:3] = False
    index, score = draws.best(x, seed, None, mask, 2, first)
    ids = torch.arange(rows).unsqueeze(-1)
    noise = [draws.gumbel_noise(seed, ids, torch.tensor(i), cols, first, score.dtype) for i in range(2)]
    top, at = (x.to(score.dtype) + torch.stack(noise)).masked_fill(~mask, -torch.inf).max(-1)
    assert score.equal(top) if rows == 1 else score[:, :-1].equal(top[:, :-1])
    assert rows == 1 or score[:, -1].isnan().all()
    assert index.equal(torch.where(top.isfinite(), at, -1))


@pytest.mark.parametrize("cols", [10, 100])
def test_a_word_of_the_tail_takes_its_second_word_at_a_temperature(cols):
    """Category 2 has the word 152. Category 5 is brought to its score, a little below or above."""
    t, row, seed = 0.5, torch.tensor([[4]]), torch.tensor(11)
    start = 1349284
    g = reference.gumbel(seed, row, cols, start, torch.tensor(0), torch.float64)
    assert g[0, 2] == g.max()
    assert abs(g[0, 2].item() + math.log(152.5 * 2**-32)) > 1e-4  # what the first word alone gives
    for step, want in ((-1e-9, 2), (1e-9, 5)):
        x = torch.zeros(1, cols, dtype=torch.float64)
        x[0, 5] = t * (g[0, 2] - g[0, 5]) + step
        draw = Draw(x, t, seed, row, None, start)
        assert cpu.tempered(draw, 1).item() == want
        assert cpu.topk(draw, 1, 2).tolist() == [[[want, 7 - want]]]


@pytest.mark.parametrize("cols", [16, 32, 48])
def test_narrow_rows_may_have_a_seed_each(cols):
    """Rows side by side, of which each is what it is alone."""
    x, seeds = torch.randn(20, cols, generator=torch.Generator().manual_seed(0)), torch.arange(20).view(20, 1)
    ids = torch.arange(20).view(20, 1)
    together = cpu.drawn(Draw(x, 0.7, seeds, ids), 2)
    for r in range(20):
        alone = cpu.drawn(Draw(x[r : r + 1], 0.7, seeds[r : r + 1], ids[r : r + 1]), 2)
        assert torch.equal(together[0][:, r : r + 1], alone[0])
        assert torch.equal(together[2][r : r + 1], alone[2])
