"""The compiled CPU kernels equal the reference: over shapes, strides, dtypes, masks and special values.

How "within 4 ulp" is measured. A softmax turns an error of the scores into a relative error of y, so two steps are
compared: the noise by itself (within 4 ulp of max(|G|, 1)), and y, for scores that have our noise added, against the
float64 softmax of the same float32 arguments (s - m) / tau (within 4 units in the last place of each y, subnormal ones
included). torch's own float32 softmax of these arguments is up to 4.8 units off.
"""

from __future__ import annotations

import math

import kernel_cases
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from torch import Tensor
from torch.testing._internal.two_tensor import TwoTensor

import softdraw
from softdraw.arguments import Draw, compute_dtype, row_ids
from softdraw.kernels import cpu, native, reference

pytestmark = pytest.mark.skipif(native.library() is None, reason="the kernels are not compiled here")
ULP = 4
fuzz = settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
cases = given(case=kernel_cases.CASES)


def ulps(a: Tensor, b: Tensor) -> float:
    """The largest distance of ``a`` from ``b`` in units of the last place of ``b``; NaN equals NaN."""
    assert torch.equal(a.isnan(), b.isnan())
    assert torch.equal(a.isinf(), b.isinf())
    limits = torch.finfo(b.dtype)
    a, b = a.double().nan_to_num(0, 0, 0), b.double().nan_to_num(0, 0, 0)
    unit = torch.exp2(b.abs().clamp_min(limits.tiny).log2().floor()) * limits.eps
    return ((a - b).abs() / unit).max().item() if a.numel() else 0.0


def exact(s: Tensor, case: kernel_cases.Case) -> Tensor:
    """The softmax of scores ``s`` with nothing rounded after (s - m) / tau, returned in the dtype of the logits."""
    s = s if case.mask is None else s.masked_fill(~case.mask, -math.inf)
    top = s.amax(-1, keepdim=True)
    a = ((s - torch.where(top == -math.inf, 0, top)) / case.tau).double()
    y = torch.softmax(a, -1).masked_fill(top == -math.inf, 0)
    return y.to(case.logits.dtype)


def noised(case: kernel_cases.Case) -> Tensor:
    """Logits with the kernels' noise, in the compute dtype."""
    logits, dtype = case.logits, compute_dtype(case.logits.dtype)
    ids = row_ids(logits.shape[:-1], logits.device) if case.rows is None else case.rows
    return logits.to(dtype) + cpu.gumbel(case.seed, ids, logits.shape[-1], case.col_start, torch.tensor(0), dtype)


@cases
@fuzz
def test_soft_equals_the_reference(case):
    y = cpu.soft(case.draw)
    assert y.dtype == case.logits.dtype
    assert y.stride() == torch.empty_like(case.logits).stride()
    # One unit of 16 bits, where 4 of 32 cross a boundary; in float64 both sides are rounded.
    allowed = {torch.float32: ULP, torch.float64: 2 * ULP}.get(y.dtype, 1)
    assert ulps(y, exact(noised(case), case)) <= allowed


@cases
@fuzz
def test_hard_and_index_equal_the_reference(case):
    samples = 2
    got = cpu.index(*case.index(samples))
    expected = reference.index(*case.index(samples))
    assert near_ties_only(got, expected, case)
    y, index = cpu.hard(case.draw), got[0]
    assert y.stride() == torch.empty_like(case.logits).stride()
    categories = torch.arange(y.shape[-1])
    none = index == -1
    assert torch.equal(y[~none], (categories == index.unsqueeze(-1)).to(y.dtype)[~none])
    assert torch.equal(y[none].isnan(), reference.hard(case.draw)[none].isnan())
    assert not y[none].nan_to_num(0).any()


def near_ties_only(got: Tensor, expected: Tensor, case: kernel_cases.Case) -> bool:
    """Indices agree, save where the two scores are within 2 ulp of one another."""
    different = (got != expected).nonzero()
    for sample, *batch in different.tolist():
        ids = row_ids(case.logits.shape[:-1], case.logits.device) if case.rows is None else case.rows
        dtype = compute_dtype(case.logits.dtype)
        s = reference.scores(case.draw._replace(rows=ids), torch.tensor(sample))[tuple(batch)]
        a, b = (s[indices[(sample, *batch)]].item() for indices in (got, expected))
        if not abs(a - b) <= 2 * torch.finfo(dtype).eps * max(abs(a), abs(b), 1):
            return False
    return True


@cases
@fuzz
def test_backward_passes_equal_the_reference(case):
    dtype = compute_dtype(case.logits.dtype)
    wide = reference.soft(Draw(noised(case), case.tau, None, None, case.mask))
    y, g = wide.to(case.logits.dtype), case.grad.to(dtype)
    soft = cpu.soft_backward(y, case.grad, case.tau)
    hard = cpu.hard_backward(case.draw, case.grad)
    for got, draw in ((soft, y.to(dtype)), (hard, wide)):
        expected = reference.soft_backward(draw, g, case.tau)
        size = draw * (g.abs() + (g * draw).abs().sum(-1, keepdim=True)) / case.tau
        allowed = 16 * torch.finfo(dtype).eps * size + torch.finfo(y.dtype).tiny
        if y.dtype != dtype:  # the rounding of the result
            allowed = allowed + torch.finfo(y.dtype).eps * expected.abs()
        assert got.dtype == case.logits.dtype
        assert torch.equal(got.isnan(), expected.isnan())
        error = (got.to(dtype) - expected).nan_to_num(0).abs()
        assert bool((error <= allowed.nan_to_num(math.inf)).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("start", [0, 1, 2, 3, 5, 2**32 - 1500])
def test_noise_equals_the_reference(dtype, start):
    seed, rows = torch.tensor(-(2**63)), torch.tensor([[0], [2**32 + 7], [2**63 - 1]])
    for cols in (1, 4, 30, 1400):
        got = cpu.gumbel(seed, rows, cols, start, torch.tensor(3), dtype)
        expected = reference.gumbel(seed, rows, cols, start, torch.tensor(3), dtype)
        unit = torch.finfo(dtype).eps * expected.abs().clamp_min(1)
        assert ((got - expected).abs() / unit).max() <= ULP


def test_the_tail_takes_its_second_word():
    """Among 4e7 words some are below 256; there the noise beyond 22.2 tells one second word from another."""
    seed, cols, found = torch.tensor(11), 4_000_000, 0
    for row in range(10):
        rows = torch.tensor([[row]])
        g = cpu.gumbel(seed, rows, cols, 0, torch.tensor(0), torch.float32)[0]
        top = g.max(0)
        if top.values > 16.7:  # a word below 256 is above 16.6
            column = int(top.indices)
            expected = reference.gumbel(seed, rows, 1, column, torch.tensor(0), torch.float32)[0, 0]
            assert abs(float(expected - top.values)) <= ULP * torch.finfo(torch.float32).eps * float(expected)
            found += 1
    assert found >= 2


@pytest.mark.parametrize("cols", [4, 41, 48, 300])
@pytest.mark.parametrize("row", [1275399, 3451788, 5419989, 6948711])  # one for each of the first four columns
def test_short_rows_take_it_too(row, cols):
    """Rows with a word below 256, found among 1.2e7, in draws of every width that has code of its own, wherever they
    begin."""
    seed, none, ids = torch.tensor(3), torch.tensor(0), torch.tensor([[row]])
    column = int(reference.gumbel(seed, ids, 4, 0, none, torch.float32).argmax())
    for start in range(column + 1):
        g = reference.gumbel(seed, ids, cols, start, none, torch.float32)
        assert g[0, column - start] > 16.7
        y = cpu.soft(Draw(torch.zeros(1, cols), 30.0, seed, ids, None, start))  # so warm that a draw tells 22 from 17
        torch.testing.assert_close(y.double(), (g.double() / 30).softmax(-1), rtol=1e-6, atol=0)


def test_ten_million_draws_have_the_same_index():
    """Argmax of 10^7 draws, equal save where the two best scores differ by less than 2 ulp."""
    seed, cols, rows = torch.tensor(5), 5, 10**6
    logits = torch.linspace(-1, 1, cols).expand(rows, cols)
    for part in range(10):
        ids = torch.arange(part * rows, (part + 1) * rows).unsqueeze(-1)
        got = cpu.index(Draw(logits, 1.0, seed, ids), 1)[0]
        s = reference.scores(Draw(logits, 1.0, seed, ids))
        different = got != s.argmax(-1)
        top, second = s[different].topk(2).values.unbind(-1)
        assert bool((top - second <= 2 * torch.finfo(s.dtype).eps * top.abs().clamp_min(1)).all())


@pytest.mark.parametrize("dtype", kernel_cases.DTYPES)
@pytest.mark.parametrize("cols", [3, 21, 100, 2100])
def test_every_instruction_set_draws_the_same(dtype, cols):
    """Noise and indices bit for bit; y, whose sum is taken in the order of the lanes, within its ulp."""
    best, tested = native.isa(), []
    x = 2 * torch.randn(50, cols, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    seed, wide = torch.tensor(9), compute_dtype(dtype)

    def run() -> list[Tensor]:
        noise = cpu.gumbel(seed, row_ids((50,), x.device), cols, 2, torch.tensor(1), wide)
        return [noise, cpu.index(Draw(x, 1.0, seed), 3), cpu.soft(Draw(x, 0.3, seed))]

    noise, index, y = run()
    for name in ("x86-64-v2", "x86-64-v3", "x86-64-v4"):
        try:
            native.use_isa(name)
            other_noise, other_index, other_y = run()
        except ValueError:
            continue
        finally:
            native.use_isa(best)
        assert torch.equal(other_noise, noise), name
        assert torch.equal(other_index, index), name
        assert ulps(other_y, y) <= (2 * ULP if dtype == torch.float64 else 1), name
        tested.append(name)
    assert best == "baseline" or best in tested


@example(threads=2)
@example(threads=5)
@given(threads=kernel_cases.st.integers(1, 16))
@settings(max_examples=3, deadline=None, derandomize=True)
def test_the_number_of_threads_changes_no_bit(threads):
    x = torch.randn(500, 300, generator=torch.Generator().manual_seed(1))
    seed, before = torch.tensor(9), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        y, i = cpu.soft(Draw(x, 0.5, seed)), cpu.index(Draw(x, 1.0, seed), 2)
        torch.set_num_threads(threads)
        assert torch.equal(cpu.soft(Draw(x, 0.5, seed)), y)
        assert torch.equal(cpu.index(Draw(x, 1.0, seed), 2), i)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("cols", [7, 16, 90])
def test_one_seed_a_row_draws_each_row_with_its_own(cols):
    x = torch.randn(20, cols, generator=torch.Generator().manual_seed(2))
    seeds = (2**33 + 1) * torch.arange(20).view(20, 1)  # that differ in both words
    y = cpu.soft(Draw(x, 1.0, seeds, torch.zeros(20, 1, dtype=torch.int64)))
    for r in range(20):
        alone = cpu.soft(Draw(x[r : r + 1], 1.0, seeds[r]))
        assert torch.equal(y[r : r + 1], alone)


def test_a_lazy_negation_is_carried_out():
    """The imaginary part of a conjugate is the original's memory and a bit that says minus."""
    z = torch.randn(5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.complex64)
    x, y = z.conj().imag, torch.full((5, 6), 1 / 6)
    assert x.is_neg()
    torch.testing.assert_close(cpu.soft(Draw(x, 1.0, None)), (-z.imag).softmax(-1))
    torch.testing.assert_close(cpu.soft_backward(y, x, 1.0), reference.soft_backward(y, -z.imag, 1.0))


def test_a_mask_without_memory_is_refused():
    """As a wrapper around another tensor has it: a null pointer would say that there is no mask."""
    allowed = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(TypeError, match=r"TwoTensor of shape \(2, 3\) has no memory"):
        softdraw.gumbel_softmax(torch.zeros(2, 3), mask=TwoTensor(allowed, allowed))
    y = torch.full((2, 3), 1 / 3)
    with pytest.raises(TypeError, match="has no memory"):
        cpu.soft_backward(y, torch._efficientzerotensor((2, 3)), 1.0)


def test_no_gradient_from_a_category_of_no_mass():
    y, g = torch.tensor([[0.25, 0.75, 0.0, 0.0]]), torch.tensor([[1.0, 2.0, math.inf, math.nan]])
    expected = torch.tensor([[0.25 * (1 - 1.75), 0.75 * (2 - 1.75), 0, 0]])
    torch.testing.assert_close(cpu.soft_backward(y, g, 1.0), expected)
    logits = torch.tensor([[0.0, 1.0, -math.inf, -math.inf]])
    assert bool(cpu.hard_backward(Draw(logits, 1.0, None), g).isfinite().all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cols", [10, 100, 2100])
def test_the_hard_gradient_is_rounded_once(dtype, cols):
    """It is that of float32, cast: y, which is never stored, is not rounded."""
    g = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(40, cols, generator=g).to(dtype) for _ in range(2))
    draw = Draw(x, 0.7, torch.tensor(4))
    wide = cpu.hard_backward(draw._replace(logits=x.float()), grad.float())
    assert torch.equal(cpu.hard_backward(draw, grad), wide.to(dtype))
    leaf = x.clone().requires_grad_()
    y = softdraw.gumbel_softmax(leaf, 0.7, hard=True, seed=4)
    (formula,) = torch.autograd.grad(y, leaf, grad, create_graph=True)
    torch.testing.assert_close(formula, cpu.hard_backward(draw, grad))


@pytest.mark.parametrize("tau", [1e-38, 1e-30, 1e30, 3e38])
def test_any_tau(tau):
    x = torch.tensor([[1.0, 2.0, 3.0, -2e38], [0.0, 0.0, 0.0, 1.0]])
    assert ulps(cpu.soft(Draw(x, tau, None)), reference.soft(Draw(x, torch.tensor(tau), None))) <= ULP


@pytest.mark.parametrize("tau", [0.0, -1.0, math.inf, math.nan])
def test_an_illegal_tau_tensor_is_an_error(tau):
    for bad in (torch.tensor(tau), torch.tensor([[1.0], [tau]])):
        with pytest.raises(ValueError, match="tau must be positive and finite"):
            cpu.soft(Draw(torch.zeros(2, 3), bad, None))
