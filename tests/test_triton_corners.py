"""The corners of the Triton kernels, each by itself: in Triton's interpreter, or on a GPU."""

from __future__ import annotations

import math

import pytest
import torch
from triton_here import DEVICE, body, cut, marks, run, whole_and_split  # noqa: F401

from softdraw.arguments import Draw
from softdraw.kernels import reference

pytestmark = marks


def test_ties_go_to_the_smallest_index_and_zero_mass_passes_no_gradient():
    x = torch.tensor([[1.0, 2.0, 2.0, 0.0, 2.0]])
    assert run("hard", Draw(x, 1.0, None)).argmax() == 1
    y, g = torch.tensor([[0.25, 0.75, 0.0, 0.0]]), torch.tensor([[1.0, 2.0, math.inf, math.nan]])
    expected = torch.tensor([[0.25 * (1 - 1.75), 0.75 * (2 - 1.75), 0, 0]])
    torch.testing.assert_close(run("soft_backward", y, g, 1.0), expected)
    logits = torch.tensor([[0.0, 1.0, -math.inf, -math.inf]])
    assert bool(run("hard_backward", Draw(logits, 1.0, None), g).isfinite().all())


@pytest.mark.parametrize("tau", [1e-38, 1e-30, 1e30, 3e38])
def test_any_tau(tau):
    x = torch.tensor([[1.0, 2.0, 3.0, -2e38], [0.0, 0.0, 0.0, 1.0]])
    for t in (tau, torch.tensor(tau)):
        expected = reference.soft(Draw(x.double(), tau, None)).float()
        torch.testing.assert_close(run("soft", Draw(x, t, None)), expected, rtol=1e-5, atol=1e-30)


def test_a_permuted_batch_of_three_dimensions():
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).permute(2, 1, 0, 3)
    seed, mask = torch.tensor(4), (torch.arange(5) != 2).expand(x.shape)
    draw = Draw(x, 1.0, seed, None, mask)
    torch.testing.assert_close(run("soft", draw), reference.soft(draw))
    assert torch.equal(run("index", draw, 2), reference.index(draw, 2))
    torch.testing.assert_close(run("soft_backward", x, x, 1.0), reference.soft_backward(x, x, 1.0))
    channels = torch.randn(2, 7, 3, 4, generator=torch.Generator().manual_seed(0)).movedim(1, -1)
    torch.testing.assert_close(run("soft", Draw(channels, 1.0, seed)), reference.soft(Draw(channels, 1.0, seed)))


def test_the_check_before_first_use(monkeypatch):
    from softdraw.kernels import check

    device = torch.device(DEVICE)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        assert check.disagreement(body, device, dtype) is None
    monkeypatch.setattr(body, "hard", lambda draw: torch.zeros_like(draw.logits))
    assert check.disagreement(body, device, torch.float32).startswith("hard of ")


def test_the_check_sees_a_wrong_rule_a_wrong_bit_and_a_wrong_pass(monkeypatch):
    from softdraw.kernels import check, check_passes

    x = torch.linspace(-2, 2, 160, device=DEVICE).view(4, 40)
    mask = (torch.arange(40, device=DEVICE) % 3 > 0).expand(4, 40)
    seed, ids = torch.tensor(3, device=DEVICE), torch.arange(4, device=DEVICE).view(4, 1)
    draw = Draw(x, torch.linspace(0.5, 1, 4, device=DEVICE).view(4, 1), seed, ids, mask)

    def first(module, name, change):
        """The first result that is far from the reference's where ``change`` is made of an operation's."""
        right = getattr(module, name)
        with monkeypatch.context() as m:
            m.setattr(module, name, lambda *arguments: change(right(*arguments)))
            for name, a, b in check._rules(body, draw, True) if module is body else check_passes.results(body, x):
                if not torch.allclose(a.double(), b.double(), 1e-4, 1e-4 * float(b.abs().max())):
                    return name
        return None

    assert first(body, "bits", lambda b: b) is None
    assert first(body.passes, "entropy", lambda made: made) is None
    for name in ("rule_backward", "bits", "bits_backward"):
        assert first(body, name, lambda made: made + 0.01) == name
    for name in ("entropy", "index_nll", "nll", "kl"):
        assert first(body.passes, name, lambda made: (made[0] + 0.01, made[1])) == name
        backward = f"{name}_backward"
        assert first(body.passes, backward, lambda made: (made[0] * 1.01, *made[1:])) == backward


@whole_and_split
@pytest.mark.usefixtures("cut")
def test_an_infinite_gradient_spreads_from_where_there_is_mass(split):
    """Columns of three splits: in the second, exponentials are 1 beside one another and 0 in the row."""
    x = torch.zeros(4, 48)
    x[:, 16:32] = -200.0
    x[2, 40] = -math.inf
    grad = torch.randn(4, 48, generator=torch.Generator().manual_seed(0))
    expected = reference.hard_backward(Draw(x, 1.0, None), grad)
    for worst in (math.inf, -math.inf, math.nan):
        g = grad.clone()
        g[0, 20] = g[2, 40] = g[3, 5] = worst  # no mass, forbidden, mass
        got = run("hard_backward", Draw(x, 1.0, None), g)
        torch.testing.assert_close(got[:3], expected[:3], rtol=1e-5, atol=1e-7)
        assert not got[3, :16].isfinite().any()
        soft = run("soft_backward", reference.soft(Draw(x, 1.0, None)), g, 1.0)
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
    expected = reference.soft(Draw(x, 0.7, seed))
    torch.testing.assert_close(body.soft(Draw(far, 0.7, place)).cpu(), expected)
    assert torch.equal(body.index(Draw(far, 1.0, place), 1).cpu(), reference.index(Draw(x, 1.0, seed), 1))
    del far
    far = spread(grad)
    dx = body.soft_backward(expected.to(DEVICE), far, 0.7).cpu()
    torch.testing.assert_close(dx, reference.soft_backward(expected, grad, 0.7))
    del far
    far = spread(mask)
    y = body.soft(Draw(x.to(DEVICE), 0.7, place, None, far)).cpu()
    torch.testing.assert_close(y, reference.soft(Draw(x, 0.7, seed, None, mask)))


def test_no_rows_and_one_category():
    seed, grad = torch.tensor(3), torch.full((5, 1), 2.0)
    for shape in ((0, 7), (3, 0, 4)):
        x = torch.zeros(shape)
        assert run("soft", Draw(x, 1.0, seed)).shape == shape
        assert run("hard_backward", Draw(x, 1.0, seed), x).shape == shape
        assert run("index", Draw(x, 1.0, seed), 2).shape == (2, *shape[:-1])
    x = torch.tensor([[0.0], [-1e30], [1e30], [-math.inf], [math.nan]])
    expected = torch.tensor([[1.0], [1.0], [1.0], [0.0], [math.nan]])
    for name in ("soft", "hard"):
        assert torch.equal(run(name, Draw(x, 0.1, seed)).nan_to_num(7), expected.nan_to_num(7))
    assert run("index", Draw(x, 1.0, seed), 1).tolist() == [[0, 0, 0, -1, -1]]
    assert torch.equal(run("hard_backward", Draw(x, 0.1, seed), grad)[:4], torch.zeros(4, 1))


@whole_and_split
@pytest.mark.usefixtures("cut")
def test_equal_scores_in_several_splits_go_to_the_first(split):
    x = torch.zeros(2, 200)
    x[0, [37, 38, 100, 199]] = x[1, [15, 16, 150]] = 1.0
    assert run("hard", Draw(x, 1.0, None)).nonzero().tolist() == [[0, 37], [1, 15]]


def test_a_row_draws_the_same_wherever_it_stands():
    """By its id alone: alone, in another batch, and beyond 2^32."""
    g = torch.Generator().manual_seed(0)
    x, seed = torch.randn(9, 21, generator=g), torch.tensor(3)
    ids = torch.tensor([0, 5, 2**31, 2**32, 2**32 + 5, 2**40, 2**62, 7, 1]).view(9, 1)
    y = run("soft", Draw(x, 0.7, seed, ids))
    torch.testing.assert_close(y, reference.soft(Draw(x, 0.7, seed, ids)))
    order = torch.tensor([4, 8, 0, 3, 7, 1, 2, 6, 5])
    assert torch.equal(run("soft", Draw(x[order], 0.7, seed, ids[order])), y[order])
    assert torch.equal(run("soft", Draw(x[4:5], 0.7, seed, ids[4:5])), y[4:5])
