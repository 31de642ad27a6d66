"""The Triton kernels equal the reference: in Triton's interpreter (test_triton_process.py runs it), or on a GPU.

The scheme: the error against float64 is at most the reference's own error plus a margin, in units of the last place.
"Split" cases cut rows as wide ones are cut, at few columns, and combine few splits at a time.
"""

from __future__ import annotations

import math
import os

import kernel_cases
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from torch import Tensor

from softdraw.arguments import compute_dtype, row_ids
from softdraw.kernels import reference

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not INTERPRETED and not torch.cuda.is_available(), reason="no CUDA device is here"),
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning"),
]
if INTERPRETED or torch.cuda.is_available():
    body = pytest.importorskip("softdraw.kernels.triton")

DEVICE = "cpu" if INTERPRETED else "cuda"
MARGIN = 8  # ulp of max(|G|, 1), and of the largest argument of an exponential: the GPU's log2 and exp2 are approximate
fuzz = settings(  # on a GPU most examples compile kernels of their own, a second each
    max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
whole_and_split = pytest.mark.parametrize("split", [False, True])


@pytest.fixture
def cut(request):
    """Tiles as they are, or of so few columns that rows of some tens are split."""
    with pytest.MonkeyPatch.context() as patch:
        if request.getfixturevalue("split"):
            patch.setattr(body.layout, "_WHOLE", 32)
            patch.setattr(body.layout, "_SPLIT", 16)
            patch.setattr(body, "_PARTS", 4)
        yield


def run(name: str, *arguments) -> Tensor:
    """An operation of the Triton body on its device; tensors of the result are back on the CPU."""
    there = (x.to(DEVICE) if isinstance(x, Tensor) else x for x in arguments)
    return getattr(body, name)(*there).cpu()


def noised(case: kernel_cases.Case) -> Tensor:
    """Logits with the kernel's own noise, in the compute dtype."""
    logits, dtype = case.logits, compute_dtype(case.logits.dtype)
    ids = row_ids(logits.shape[:-1], logits.device) if case.rows is None else case.rows
    return logits.to(dtype) + run("gumbel", case.seed, ids, logits.shape[-1], 0, torch.tensor(0), dtype)


def equal_but(got: Tensor, expected: Tensor, allowed: Tensor) -> bool:
    """NaN in the same places, and differences of at most ``allowed``."""
    error = (got.double() - expected.double()).nan_to_num(0).abs()
    return torch.equal(got.isnan(), expected.isnan()) and bool((error <= allowed.nan_to_num(math.inf)).all())


@whole_and_split
@pytest.mark.usefixtures("cut")
@given(case=kernel_cases.CASES)
@fuzz
def test_a_draw_and_its_gradient_equal_the_reference(split, case):
    assume(not split or case.logits.shape[-1] <= 70)
    dtype, s = case.logits.dtype, noised(case)
    wide, tau, g = compute_dtype(dtype), case.tau, case.grad.double()
    taus = tau if isinstance(tau, float) else tau.double()
    none = torch.finfo(dtype).tiny
    # y: an error of the scores' noise and arguments is a relative error of y.
    y = run("soft", *case.draw)
    assert y.dtype == dtype
    assert y.stride() == torch.empty_like(case.logits).stride()
    exact = reference.soft(s.double(), tau, None, None, case.mask)
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
    assert equal_but(run("hard_backward", case.logits, case.grad, *case.draw[1:]), expected, allowed)


@whole_and_split
@pytest.mark.usefixtures("cut")
@given(case=kernel_cases.CASES)
@fuzz
def test_hard_and_index_equal_the_reference(split, case):
    assume(not split or case.logits.shape[-1] <= 70)
    got = run("index", case.logits, case.seed, case.rows, case.mask, 2)
    expected = reference.index(case.logits, case.seed, case.rows, case.mask, 2)
    differ = (got != expected).nonzero()
    for place in map(tuple, differ.tolist()):
        sample, *batch = place
        ids = row_ids(case.logits.shape[:-1], case.logits.device) if case.rows is None else case.rows
        s = reference._scores(case.logits, case.seed, ids, case.mask, torch.tensor(sample))[tuple(batch)]
        a, b = s[got[place]].item(), s[expected[place]].item()
        assert abs(a - b) <= MARGIN * torch.finfo(s.dtype).eps * max(abs(a), 1)
    y, index = run("hard", *case.draw), got[0]
    assert y.stride() == torch.empty_like(case.logits).stride()
    none = index == -1
    assert torch.equal(y[~none], (torch.arange(y.shape[-1]) == index.unsqueeze(-1)).to(y.dtype)[~none])
    assert torch.equal(y[none].isnan(), reference.hard(*case.draw)[none].isnan())
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
    y, expected = run("soft", x, 0.5, seed, None, mask), reference.soft(x, 0.5, seed, None, mask)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-7)
    assert torch.equal(run("hard", x, 0.5, seed, None, mask), reference.hard(x, 0.5, seed, None, mask))
    assert torch.equal(run("index", x, seed, None, mask, 2), reference.index(x, seed, None, mask, 2))
    dx = reference.soft_backward(expected, grad, 0.5)
    torch.testing.assert_close(run("soft_backward", y, grad, 0.5), dx, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(run("hard_backward", x, grad, 0.5, seed, None, mask), dx, rtol=1e-4, atol=1e-6)
    x[2, cols - 1] = math.nan
    assert torch.equal(run("index", x, seed, None, None, 1)[0, 1:], torch.tensor([-1, -1]))
    nan = run("soft", x, 0.5, seed, None, None)
    assert bool(nan[2].isnan().all())
    assert not nan[:2].isnan().any()


def test_ties_go_to_the_smallest_index_and_zero_mass_passes_no_gradient():
    x = torch.tensor([[1.0, 2.0, 2.0, 0.0, 2.0]])
    assert run("hard", x, 1.0, None, None, None).argmax() == 1
    y, g = torch.tensor([[0.25, 0.75, 0.0, 0.0]]), torch.tensor([[1.0, 2.0, math.inf, math.nan]])
    expected = torch.tensor([[0.25 * (1 - 1.75), 0.75 * (2 - 1.75), 0, 0]])
    torch.testing.assert_close(run("soft_backward", y, g, 1.0), expected)
    logits = torch.tensor([[0.0, 1.0, -math.inf, -math.inf]])
    assert bool(run("hard_backward", logits, g, 1.0, None, None, None).isfinite().all())


@pytest.mark.parametrize("tau", [1e-38, 1e-30, 1e30, 3e38])
def test_any_tau(tau):
    x = torch.tensor([[1.0, 2.0, 3.0, -2e38], [0.0, 0.0, 0.0, 1.0]])
    for t in (tau, torch.tensor(tau)):
        expected = reference.soft(x.double(), tau, None, None, None).float()
        torch.testing.assert_close(run("soft", x, t, None, None, None), expected, rtol=1e-5, atol=1e-30)


def test_a_permuted_batch_of_three_dimensions():
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).permute(2, 1, 0, 3)
    seed, mask = torch.tensor(4), (torch.arange(5) != 2).expand(x.shape)
    torch.testing.assert_close(run("soft", x, 1.0, seed, None, mask), reference.soft(x, 1.0, seed, None, mask))
    assert torch.equal(run("index", x, seed, None, mask, 2), reference.index(x, seed, None, mask, 2))
    torch.testing.assert_close(run("soft_backward", x, x, 1.0), reference.soft_backward(x, x, 1.0))
    channels = torch.randn(2, 7, 3, 4, generator=torch.Generator().manual_seed(0)).movedim(1, -1)
    torch.testing.assert_close(
        run("soft", channels, 1.0, seed, None, None), reference.soft(channels, 1.0, seed, None, None)
    )


def test_the_check_before_first_use(monkeypatch):
    from softdraw.kernels.triton import check

    monkeypatch.setattr(check, "_SHAPES", check._SHAPES[:2])
    assert check.disagreement(torch.device("cpu")) is None
    monkeypatch.setattr(check.triton, "hard", lambda x, *_: torch.zeros_like(x))
    assert check.disagreement(torch.device("cpu")) == "hard of 4x40 differs from plain torch"


@whole_and_split
@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("cols", [3, 40])
def test_the_error_against_float64_is_the_references(cols, dtype, split):
    """At most that of the reference and, for y, a margin of units in the last place of the largest score, over tau."""
    g = torch.Generator().manual_seed(cols)
    x, grad = (3 * torch.randn(5, cols, generator=g).to(dtype) for _ in range(2))
    seed, wide, none = torch.tensor(3), compute_dtype(dtype), torch.finfo(dtype).tiny
    s = reference._scores(x, seed, None, None, torch.tensor(0)).double()
    # The interpreter cuts bfloat16 off where the hardware rounds.
    truncated = torch.finfo(dtype).eps if INTERPRETED and dtype == torch.bfloat16 else 0.0
    for tau in (0.1, 1.0, 5.0):
        unit = MARGIN * torch.finfo(wide).eps * (1 + s.abs().amax(-1, keepdim=True) / tau)
        exact = (s / tau).softmax(-1)
        y, theirs = run("soft", x, tau, seed, None, None), reference.soft(x, tau, seed, None, None)
        error, its = ((t.double() - exact).abs() / exact.clamp_min(none) for t in (y, theirs))
        tiny = exact < 2 * torch.finfo(wide).tiny  # exponentials below normal numbers are flushed to 0
        assert ((error <= its.max() + unit + truncated) | tiny).all()
        assert (y[tiny] <= 4 * torch.finfo(wide).tiny).all()
        dx = exact * (grad.double() - (exact * grad.double()).sum(-1, keepdim=True)) / tau
        size = exact * (grad.double().abs() + (exact * grad.double()).abs().sum(-1, keepdim=True)) / tau
        d = run("hard_backward", x, grad, tau, seed, None, None)
        # One rounding to the dtype, of the result: a y rounded on the way would be off by its share of either term.
        assert (
            (d.double() - dx).abs() <= (torch.finfo(dtype).eps / 2 + truncated) * dx.abs() + 2 * unit * size + none
        ).all()


@whole_and_split
@pytest.mark.usefixtures("cut")
def test_an_infinite_gradient_spreads_from_where_there_is_mass(split):
    """Columns of three splits: in the second, exponentials are 1 beside one another and 0 in the row."""
    x = torch.zeros(4, 48)
    x[:, 16:32] = -200.0
    x[2, 40] = -math.inf
    grad = torch.randn(4, 48, generator=torch.Generator().manual_seed(0))
    expected = reference.hard_backward(x, grad, 1.0, None, None, None)
    for worst in (math.inf, -math.inf, math.nan):
        g = grad.clone()
        g[0, 20] = g[2, 40] = g[3, 5] = worst  # no mass, forbidden, mass
        got = run("hard_backward", x, g, 1.0, None, None, None)
        torch.testing.assert_close(got[:3], expected[:3], rtol=1e-5, atol=1e-7)
        assert not got[3, :16].isfinite().any()
        soft = run("soft_backward", reference.soft(x, 1.0, None, None, None), g, 1.0)
        torch.testing.assert_close(soft[:3], expected[:3], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("step", [2**30 + 4, 2**30 + 7])
def test_offsets_beyond_32_bits(step):
    """Row 2 starts beyond 2^31 elements; of the memory between the rows nothing is touched."""

    def spread(x):
        room = torch.empty(2 * step + 8, dtype=x.dtype, device=DEVICE)
        rows = room.as_strided((3, 8), (step, 1))
        rows.copy_(x)
        return rows

    g = torch.Generator().manual_seed(0)
    x, grad = torch.randn(3, 8, generator=g).half(), torch.randn(3, 8, generator=g).half()
    mask, seed = torch.rand(3, 8, generator=g) > 0.3, torch.tensor(3)
    far, place = spread(x), seed.to(DEVICE)
    expected = reference.soft(x, 0.7, seed, None, None)
    torch.testing.assert_close(body.soft(far, 0.7, place, None, None).cpu(), expected)
    assert torch.equal(body.index(far, place, None, None, 1).cpu(), reference.index(x, seed, None, None, 1))
    del far
    far = spread(grad)
    dx = body.soft_backward(expected.to(DEVICE), far, 0.7).cpu()
    torch.testing.assert_close(dx, reference.soft_backward(expected, grad, 0.7))
    del far
    far = spread(mask)
    y = body.soft(x.to(DEVICE), 0.7, place, None, far).cpu()
    torch.testing.assert_close(y, reference.soft(x, 0.7, seed, None, mask))


def test_no_rows_and_one_category():
    seed, grad = torch.tensor(3), torch.full((5, 1), 2.0)
    for shape in ((0, 7), (3, 0, 4)):
        x = torch.zeros(shape)
        assert run("soft", x, 1.0, seed, None, None).shape == shape
        assert run("hard_backward", x, x, 1.0, seed, None, None).shape == shape
        assert run("index", x, seed, None, None, 2).shape == (2, *shape[:-1])
    x = torch.tensor([[0.0], [-1e30], [1e30], [-math.inf], [math.nan]])
    expected = torch.tensor([[1.0], [1.0], [1.0], [0.0], [math.nan]])
    for name in ("soft", "hard"):
        assert torch.equal(run(name, x, 0.1, seed, None, None).nan_to_num(7), expected.nan_to_num(7))
    assert run("index", x, seed, None, None, 1).tolist() == [[0, 0, 0, -1, -1]]
    assert torch.equal(run("hard_backward", x, grad, 0.1, seed, None, None)[:4], torch.zeros(4, 1))


@whole_and_split
@pytest.mark.usefixtures("cut")
def test_equal_scores_in_several_splits_go_to_the_first(split):
    x = torch.zeros(2, 200)
    x[0, [37, 38, 100, 199]] = x[1, [15, 16, 150]] = 1.0
    assert run("hard", x, 1.0, None, None, None).nonzero().tolist() == [[0, 37], [1, 15]]


def test_a_row_draws_the_same_wherever_it_stands():
    """By its id alone: alone, in another batch, and beyond 2^32."""
    g = torch.Generator().manual_seed(0)
    x, seed = torch.randn(9, 21, generator=g), torch.tensor(3)
    ids = torch.tensor([0, 5, 2**31, 2**32, 2**32 + 5, 2**40, 2**62, 7, 1]).view(9, 1)
    y = run("soft", x, 0.7, seed, ids, None)
    torch.testing.assert_close(y, reference.soft(x, 0.7, seed, ids, None))
    order = torch.tensor([4, 8, 0, 3, 7, 1, 2, 6, 5])
    assert torch.equal(run("soft", x[order], 0.7, seed, ids[order], None), y[order])
    assert torch.equal(run("soft", x[4:5], 0.7, seed, ids[4:5], None), y[4:5])
