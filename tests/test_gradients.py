"""Gradients against float64 closed forms, what is saved for them, and second derivatives."""

import pytest
import torch
import torch.nn.functional as F

import softdraw

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def make(shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("tau", [0.1, 0.7, 3.0])
@pytest.mark.parametrize("noise", [True, False])
def test_gradient_is_that_of_the_relaxed_draw(noise, tau, hard, dtype):
    logits, weight = make((20, 7), dtype).requires_grad_(), make((20, 7), dtype, seed=1)
    seed = {"seed": 3} if noise else {}
    (softdraw.gumbel_softmax(logits, tau, hard, noise=noise, **seed) * weight).sum().backward()
    exact = logits.detach().double().requires_grad_()
    added = softdraw.gumbel_noise((20, 7), seed=3, dtype=torch.float64) if noise else 0
    (((exact + added) / tau).softmax(-1) * weight.double()).sum().backward()
    tolerance = 2e-5 if dtype == torch.float32 else 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=tolerance, atol=tolerance / tau)


@pytest.mark.parametrize("dim", [0, 1])
def test_soft_and_hard_gradients_agree_at_one_seed(dim):
    weight = make((5, 4), seed=1)  # a plain sum would make both sides zero
    grads = []
    for hard in (False, True):
        logits = make((5, 4)).requires_grad_()
        (softdraw.gumbel_softmax(logits, 0.6, hard, dim=dim, seed=2) * weight).sum().backward()
        grads.append(logits.grad)
    torch.testing.assert_close(*grads)
    assert grads[0].abs().max() > 0.05


PUBLISHED = [((5,), 0, 1), ((5,), -1, 1), ((5, 4), 1, 5), ((5, 4, 3), 1, 15), ((5, 4, 3), -1, 20)]


@pytest.mark.parametrize(("shape", "dim", "count"), PUBLISHED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_torchs_own_cases(shape, dim, count, dtype):
    logits = make(shape, dtype).requires_grad_()
    y = softdraw.gumbel_softmax(logits, hard=True, dim=dim, seed=0)
    assert y.min() == 0
    assert y.sum() == count
    soft = softdraw.gumbel_softmax(logits, dim=dim, seed=0)
    assert soft.double().sum().item() == pytest.approx(count, rel=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("hard", [False, True])
def test_first_and_second_derivatives_in_float64(hard):
    logits = make((3, 5), torch.float64).requires_grad_()
    tau = (torch.rand(3, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5).requires_grad_()
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[0, 2] = mask[1, 4] = False

    def draw(logits, tau):
        return softdraw.gumbel_softmax(logits, tau, hard, mask=mask, seed=3)

    if not hard:  # the straight-through gradient is not the derivative of a one-hot
        assert torch.autograd.gradcheck(draw, (logits, tau))
    assert torch.autograd.gradgradcheck(draw, (logits, tau))


def test_hard_second_derivative_is_that_of_the_soft_draw():
    weight, direction = make((4, 5), torch.float64, seed=1), make((4, 5), torch.float64, seed=2)
    seconds = []
    for hard in (False, True):
        logits = make((4, 5), torch.float64).requires_grad_()
        y = softdraw.gumbel_softmax(logits, 0.7, hard, seed=2)
        (first,) = torch.autograd.grad((y * weight).sum(), logits, create_graph=True)
        (second,) = torch.autograd.grad((first * direction).sum(), logits)
        seconds.append(second)
    torch.testing.assert_close(*seconds)
    assert seconds[0].abs().max() > 0.01


@pytest.mark.parametrize("dtype", DTYPES)
def test_soft_saves_its_output_and_nothing_of_its_size(dtype):
    logits = make((64, 32), dtype).requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = softdraw.gumbel_softmax(logits, 0.5, seed=1, mask=torch.ones(32, dtype=torch.bool))
    large = [t for t in saved if t.numel() > 1]
    assert [t.data_ptr() for t in large] == [y.data_ptr()]


@pytest.mark.parametrize("dtype", DTYPES)
def test_hard_saves_its_inputs_and_nothing_of_its_size(dtype):
    logits = make((64, 32), dtype).requires_grad_()
    rows, mask = torch.arange(64), torch.ones(32, dtype=torch.bool)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        softdraw.gumbel_softmax(logits, 0.5, hard=True, seed=1, rows=rows, mask=mask)
    large = {t.untyped_storage().data_ptr() for t in saved if t.numel() > 1}
    assert large == {t.untyped_storage().data_ptr() for t in (logits, rows, mask)}


def test_beyond_stock_the_gradient_sums_to_zero_over_categories():
    logits = make((50, 9), torch.float64).requires_grad_()
    (softdraw.gumbel_softmax(logits, 0.3, hard=True, seed=1) * make((50, 9), torch.float64, seed=2)).sum().backward()
    assert logits.grad.sum(-1).abs().max() < 1e-14


# straight_through


def test_straight_through_is_bit_exact():
    hard = torch.tensor([0.0, -0.0, 1.0, float("nan"), float("inf"), 1e-45])
    soft = torch.tensor([0.3, 1e30, float("inf"), float("nan"), 0.1, 0.7], requires_grad=True)
    y = softdraw.straight_through(hard, soft)
    assert torch.equal(y.view(torch.int32), hard.view(torch.int32))
    weight = make((6,), seed=3)
    (y * weight).nan_to_num().sum().backward()
    assert torch.equal(soft.grad[:3], weight[:3])


def test_straight_through_where_the_usual_form_is_not_one_hot():
    soft = torch.rand(1 << 20, generator=torch.Generator().manual_seed(0))
    hard = torch.ones_like(soft)
    assert ((hard + soft) - soft != 1).any()  # what people write
    assert (softdraw.straight_through(hard, soft) == 1).all()


def test_straight_through_gives_hard_no_gradient():
    hard, soft = torch.ones(3, requires_grad=True), torch.rand(3, requires_grad=True)
    grads = torch.autograd.grad(softdraw.straight_through(hard, soft).sum(), (hard, soft), allow_unused=True)
    assert grads[0] is None or (grads[0] == 0).all()
    assert torch.equal(grads[1], torch.ones(3))
    x = torch.rand(4, dtype=torch.float64, requires_grad=True)
    y = softdraw.straight_through(x.detach().round(), x.sin())
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    torch.testing.assert_close(first, x.cos())
    torch.testing.assert_close(torch.autograd.grad(first.sum(), x)[0], -x.sin())


def test_agrees_with_stock_torch_on_a_shared_noise(monkeypatch):
    # torch's own function, fed our noise: -log(Exp) with Exp = exp(-G).
    logits, weight = make((6, 5)), make((6, 5), seed=1)
    noise = softdraw.gumbel_noise((6, 5), seed=4)
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self: self.copy_(torch.exp(-noise)))
    for hard in (False, True):
        ours, stock = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        y, z = softdraw.gumbel_softmax(ours, 0.4, hard, seed=4), F.gumbel_softmax(stock, 0.4, hard)
        torch.testing.assert_close(y, z)
        (y * weight).sum().backward()
        (z * weight).sum().backward()
        torch.testing.assert_close(ours.grad, stock.grad)
