"""What every public call promises for tau."""

import pytest
import torch
from promise_cases import DTYPES, FORMS, draw_and_grad, make, one_hot_rows

import softdraw

# tau


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tau", [1e-38, 1e-30, 1e-10, 0.01, 0.5, 1.0, 7.0, 1e10, 1e38])
def test_any_tau_is_safe_and_right(tau, dtype):
    logits = make((64, 6), dtype)
    index = softdraw.gumbel_max(logits, seed=5)
    scores = logits.double() + softdraw.gumbel_noise((64, 6), seed=5, dtype=torch.float64)
    truth = ((scores - scores.amax(-1, keepdim=True)) / tau).softmax(-1)
    for given in (tau, torch.tensor(tau, dtype=torch.float64), torch.full((64, 1), tau, dtype=torch.float64)):
        y, grad = draw_and_grad(logits, given, seed=5)
        # float32 scores are right to about 2^-21, which tau magnifies; the result is rounded to its dtype.
        tolerance = (0 if dtype == torch.float64 else min(1, 2**-20 / tau)) + 2 * torch.finfo(dtype).eps
        assert (y.double() - truth).abs().max() <= tolerance
        assert y.gather(-1, index[:, None]).eq(y.amax(-1, keepdim=True)).all()
        assert not grad.isnan().any()
        hard, grad = draw_and_grad(logits, given, hard=True, seed=5)
        assert torch.equal(hard.argmax(-1), index)
        assert one_hot_rows(hard)
        assert not grad.isnan().any()
    if tau <= 1e-10:
        assert one_hot_rows(y)
        assert (grad == 0).all()


@pytest.mark.parametrize("tau", [1e-300, 1e300])
def test_tau_beyond_float32(tau):
    y = softdraw.gumbel_softmax(make((5, 4)), tau, seed=0)
    wide = softdraw.gumbel_softmax(make((5, 4)), torch.tensor(tau, dtype=torch.float64), seed=0)
    assert torch.equal(y, wide)
    assert one_hot_rows(y) if tau < 1 else torch.equal(y, torch.full((5, 4), 0.25))


@pytest.mark.parametrize("hard", FORMS)
def test_tau_per_row_is_each_row_with_its_tau(hard):
    logits = make((3, 4, 5))
    tau = torch.rand(3, 1, 5, generator=torch.Generator().manual_seed(1)) + 0.2
    y, grad = draw_and_grad(logits, tau, hard, dim=1, seed=3)
    weight = make(y.shape, seed=99)
    for i in range(3):
        for j in range(5):
            leaf = logits[i, :, j].clone().requires_grad_()
            row = softdraw.gumbel_softmax(leaf, float(tau[i, 0, j]), hard, seed=3, rows=i * 5 + j)
            (row * weight[i, :, j]).sum().backward()
            torch.testing.assert_close(row, y[i, :, j])
            torch.testing.assert_close(leaf.grad, grad[i, :, j])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (6, 1)])
@pytest.mark.parametrize("hard", FORMS)
def test_gradient_of_tau(hard, shape, dtype):
    logits, weight = make((6, 5), dtype), make((6, 5), dtype, seed=8)
    tau = torch.full(shape, 0.8, dtype=torch.float64, requires_grad=True)
    (softdraw.gumbel_softmax(logits, tau, hard, seed=4) * weight).sum().backward()
    exact = torch.full(shape, 0.8, dtype=torch.float64, requires_grad=True)
    scores = logits.double() + softdraw.gumbel_noise((6, 5), seed=4, dtype=torch.float64)
    ((scores / exact).softmax(-1) * weight.double()).sum().backward()
    assert tau.grad.shape == shape
    # In half precision the saved soft output is rounded, and its logarithm with it.
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 5e-2)
    torch.testing.assert_close(tau.grad, exact.grad, rtol=tolerance, atol=tolerance)


def test_learned_tau_descends():
    logits, target = make((256, 5)), make((256, 5), seed=1).softmax(-1)
    tau = softdraw.nn.LearnedTau(init=2.0, floor=0.05)
    optimizer = torch.optim.SGD(tau.parameters(), lr=1.0)
    losses = []
    for _ in range(50):
        loss = (softdraw.gumbel_softmax(logits, tau(), seed=1) - target).square().sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    grid = torch.linspace(0.05, 20, 400)
    best = min((softdraw.gumbel_softmax(logits, t, seed=1) - target).square().sum(-1).mean().item() for t in grid)
    assert best <= losses[-1] < losses[0]
    assert losses[-1] - best < 0.3 * (losses[0] - best)
