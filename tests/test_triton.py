"""The Triton kernels equal the reference: in Triton's interpreter (test_triton_process.py runs it), or on a GPU.

The scheme: the error against float64 is at most the reference's own error plus a margin, in units of the last place.
"Split" cases cut rows as wide ones are cut, at few columns, and combine few splits at a time.
"""

from __future__ import annotations

import math

import kernel_cases
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from triton_here import INTERPRETED, MARGIN, cut, marks, run, whole_and_split  # noqa: F401

from softdraw.arguments import Draw, compute_dtype, row_ids
from softdraw.kernels import reference

pytestmark = marks
fuzz = settings(  # on a GPU most examples compile kernels of their own, a second each
    max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)

# A program takes the interpreter milliseconds, and each split of a row is one: few rows show all that happens to a row.
CUT = kernel_cases.cases(
    st.one_of(
        st.tuples(st.integers(0, 3), st.integers(1, 70)),
        st.tuples(st.integers(1, 3), st.sampled_from((32, 33, 48, 49, 64, 65, 100))),
        st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 70)),
    )
)


def noised(case: kernel_cases.Case) -> Tensor:
    """Logits with the kernel's own noise, in the compute dtype."""
    logits, dtype = case.logits, compute_dtype(case.logits.dtype)
    ids = row_ids(logits.shape[:-1], logits.device) if case.rows is None else case.rows
    return logits.to(dtype) + run("gumbel", case.seed, ids, logits.shape[-1], case.col_start, torch.tensor(0), dtype)


def equal_but(got: Tensor, expected: Tensor, allowed: Tensor) -> bool:
    """NaN in the same places, and differences of at most ``allowed``."""
    error = (got.double() - expected.double()).nan_to_num(0).abs()
    return torch.equal(got.isnan(), expected.isnan()) and bool((error <= allowed.nan_to_num(math.inf)).all())


@whole_and_split
@pytest.mark.usefixtures("cut")
@given(data=st.data())
@fuzz
def test_a_draw_and_its_gradient_equal_the_reference(split, data):
    case = data.draw(CUT if split else kernel_cases.CASES)
    dtype, s = case.logits.dtype, noised(case)
    wide, tau, g = compute_dtype(dtype), case.tau, case.grad.double()
    taus = tau if isinstance(tau, float) else tau.double()
    none = torch.finfo(dtype).tiny
    # y: an error of the scores' noise and arguments is a relative error of y.
    y = run("soft", case.draw)
    assert y.dtype == dtype
    assert y.stride() == torch.empty_like(case.logits).stride()
    exact = reference.soft(Draw(s.double(), tau, None, None, case.mask))
    top = s.masked_fill(~case.mask, -math.inf).amax(-1, keepdim=True) if case.mask is not None else s.amax(-1, True)
    argument = ((s - torch.where(top.isfinite(), top, 0)) / tau).abs().double().nan_to_num(0, 0, 0).clamp(1, 200)
    near = MARGIN * torch.finfo(wide).eps * argument * (1 + 2 / taus)
    assert equal_but(y, exact, near * exact + torch.finfo(dtype).eps * exact + none)
    # The gradients of that y.
    expected = reference.soft_backward(y.double(), g, tau)
    p = y.double()
    size = p * (g.abs() + (g * p).abs().sum(-1, keepdim=True)) / taus
    allowed = (16 * torch.finfo(wide).eps + torch.finfo(dtype).eps) * size + none
    assert equal_but(run("soft_backward", y, case.grad, tau), expected, allowed)
    # The hard draw's gradient is that of the exact y, which is not rounded on the way.
    expected = reference.soft_backward(exact, g, tau)
    size = exact * (g.abs() + (g * exact).abs().sum(-1, keepdim=True))
    allowed = (2 * near.amax(-1, keepdim=True) + 16 * torch.finfo(wide).eps) * size / taus
    allowed = allowed + torch.finfo(dtype).eps * expected.abs().nan_to_num(0) + none
    assert equal_but(run("hard_backward", case.draw, case.grad), expected, allowed)


@whole_and_split
@pytest.mark.usefixtures("cut")
@given(data=st.data())
@fuzz
def test_hard_and_index_equal_the_reference(split, data):
    case = data.draw(CUT if split else kernel_cases.CASES)
    got = run("index", *case.index(2))
    expected = reference.index(*case.index(2))
    differ = (got != expected).nonzero()
    for place in map(tuple, differ.tolist()):
        sample, *batch = place
        ids = row_ids(case.logits.shape[:-1], case.logits.device) if case.rows is None else case.rows
        s = reference.scores(case.draw._replace(rows=ids), torch.tensor(sample))
        s = s[tuple(batch)]
        a, b = s[got[place]].item(), s[expected[place]].item()
        assert abs(a - b) <= MARGIN * torch.finfo(s.dtype).eps * max(abs(a), 1)
    y, index = run("hard", case.draw), got[0]
    assert y.stride() == torch.empty_like(case.logits).stride()
    none = index == -1
    assert torch.equal(y[~none], (torch.arange(y.shape[-1]) == index.unsqueeze(-1)).to(y.dtype)[~none])
    assert torch.equal(y[none].isnan(), reference.hard(case.draw)[none].isnan())
    assert not y[none].nan_to_num(0).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("start", [0, 1, 3, 2**32 - 600])
def test_noise_equals_the_reference(dtype, start):
    seed, rows = torch.tensor(-(2**63)), torch.tensor([[0], [2**32 + 7], [2**63 - 1]])
    for cols in (1, 30, 600):
        got = run("gumbel", seed, rows, cols, start, torch.tensor(3), dtype)
        expected = reference.gumbel(seed, rows, cols, start, torch.tensor(3), dtype)
        unit = torch.finfo(dtype).eps * expected.abs().clamp_min(1)
        assert ((got - expected).abs() / unit).max() <= MARGIN


def test_every_row_may_have_its_seed_and_its_stream():
    seeds, rows, streams = torch.arange(5).view(5, 1), torch.full((5, 1), 3), torch.arange(7, 12).view(5, 1)
    got = run("gumbel", seeds, rows, 9, 0, streams, torch.float32)
    torch.testing.assert_close(got, reference.gumbel(seeds, rows, 9, 0, streams, torch.float32), rtol=1e-6, atol=1e-6)


def test_the_tail_takes_its_second_word():
    """Columns whose first word is below 256, found by the reference's words; the rest of their block is not moved."""
    from softdraw import noise

    seed, stream = torch.tensor(11), torch.tensor(0)
    rows = torch.arange(12).view(-1, 1)
    cols = 2_000_000
    found = 0
    for row in rows:
        small = (noise.words(seed, row, cols, 0, stream) < 256).nonzero().flatten().tolist()
        for column in small:
            start = column - column % 4 - 8 if column >= 12 else 0
            got = run("gumbel", seed, row.view(1, 1), 24, start, stream, torch.float32)
            expected = reference.gumbel(seed, row.view(1, 1), 24, start, stream, torch.float32)
            assert expected.max() > 16.6
            torch.testing.assert_close(got, expected, rtol=MARGIN * 2**-23, atol=MARGIN * 2**-23)
            found += 1
    assert found >= 1


def test_a_uniform_that_rounds_to_one_is_clamped():
    seed, row, stream = torch.tensor(11), torch.tensor([[12]]), torch.tensor(0)  # the word of column 839627: 2^32 - 50
    got = run("gumbel", seed, row, 4, 839624, stream, torch.float32)
    expected = reference.gumbel(seed, row, 4, 839624, stream, torch.float32)
    assert got.isfinite().all()
    torch.testing.assert_close(got, expected, rtol=MARGIN * 2**-23, atol=MARGIN * 2**-23)
    assert expected[0, 3] < -2.8


@pytest.mark.parametrize("cols", [16385] if INTERPRETED else [16385, 540000])  # more splits than are combined at a time
def test_wide_rows_are_combined(cols):
    _compare_wide(cols)


def _compare_wide(cols: int) -> None:
    g = torch.Generator().manual_seed(0)
    x, grad, seed = torch.randn(3, cols, generator=g), torch.randn(3, cols, generator=g), torch.tensor(3)
    x[1] = -math.inf
    x[2, 5:] = -math.inf
    mask = torch.rand(3, cols, generator=g) > 0.5
    draw = Draw(x, 0.5, seed, None, mask)
    y, expected = run("soft", draw), reference.soft(draw)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-7)
    assert torch.equal(run("hard", draw), reference.hard(draw))
    assert torch.equal(run("index", draw, 2), reference.index(draw, 2))
    dx = reference.soft_backward(expected, grad, 0.5)
    torch.testing.assert_close(run("soft_backward", y, grad, 0.5), dx, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(run("hard_backward", draw, grad), dx, rtol=1e-4, atol=1e-6)
    x[2, cols - 1] = math.nan
    assert torch.equal(run("index", Draw(x, 1.0, seed), 1)[0, 1:], torch.tensor([-1, -1]))
    nan = run("soft", Draw(x, 0.5, seed))
    assert bool(nan[2].isnan().all())
    assert not nan[:2].isnan().any()


@whole_and_split
@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("cols", [3, 40])
def test_the_error_against_float64_is_the_references(cols, dtype, split):
    """At most that of the reference and, for y, a margin of units in the last place of the largest score, over tau."""
    g = torch.Generator().manual_seed(cols)
    rows = 2 if split and INTERPRETED else 5  # which three rows more do not change: each has programs of its own
    x, grad = (3 * torch.randn(rows, cols, generator=g).to(dtype) for _ in range(2))
    seed, wide, none = torch.tensor(3), compute_dtype(dtype), torch.finfo(dtype).tiny
    s = reference.scores(Draw(x, 1.0, seed)).double()
    # The interpreter cuts bfloat16 off where the hardware rounds.
    truncated = torch.finfo(dtype).eps if INTERPRETED and dtype == torch.bfloat16 else 0.0
    for tau in (0.1, 1.0, 5.0):
        unit = MARGIN * torch.finfo(wide).eps * (1 + s.abs().amax(-1, keepdim=True) / tau)
        exact = (s / tau).softmax(-1)
        y, theirs = run("soft", Draw(x, tau, seed)), reference.soft(Draw(x, tau, seed))
        error, its = ((t.double() - exact).abs() / exact.clamp_min(none) for t in (y, theirs))
        tiny = exact < 2 * torch.finfo(wide).tiny  # exponentials below normal numbers are flushed to 0
        assert ((error <= its.max() + unit + truncated) | tiny).all()
        assert (y[tiny] <= 4 * torch.finfo(wide).tiny).all()
        dx = exact * (grad.double() - (exact * grad.double()).sum(-1, keepdim=True)) / tau
        size = exact * (grad.double().abs() + (exact * grad.double()).abs().sum(-1, keepdim=True)) / tau
        d = run("hard_backward", Draw(x, tau, seed), grad)
        # One rounding to the dtype, of the result: a y rounded on the way would be off by its share of either term.
        assert (
            (d.double() - dx).abs() <= (torch.finfo(dtype).eps / 2 + truncated) * dx.abs() + 2 * unit * size + none
        ).all()
