"""The rules that serve k of n items alone, IMLE and the relaxed top k, by hand and as published."""

import math

import pytest
import torch
from torch.testing import assert_close

import softdraw
from tests.methods import OF_SUBSETS, label, one_hot_logits

of_subsets = pytest.mark.parametrize("rule", OF_SUBSETS, ids=label)


@of_subsets
def test_rules_of_subsets_serve_no_other_law_and_take_no_value(rule):
    with pytest.raises(
        TypeError, match=f"{type(rule).__name__} does not serve Bernoulli: it needs a law of k of n items"
    ):
        softdraw.draw(softdraw.Bernoulli(torch.zeros(3)), rule)
    law = softdraw.Subset(torch.zeros(3), 1)
    with pytest.raises(ValueError, match=f"value was given with {type(rule).__name__}"):
        softdraw.draw(law, rule, value=torch.tensor([1.0, 0.0, 0.0]))


def test_imle_by_hand():
    theta, g = one_hot_logits(6, 8).requires_grad_(), one_hot_logits(6, 8, seed=1)
    law, rule = softdraw.Subset(theta, 3), softdraw.IMLE(lam=1.5, tau=0.8)
    y = softdraw.draw(law, rule, seed=4)
    scores = theta.detach() + 0.8 * softdraw.gumbel_noise((6, 8), seed=4, dtype=torch.float64)
    top = torch.zeros_like(scores).scatter(-1, scores.topk(3).indices, 1)
    moved = torch.zeros_like(scores).scatter(-1, (scores - 1.5 * g).topk(3).indices, 1)
    assert torch.equal(y.detach(), top)
    (found,) = torch.autograd.grad(y, theta, g)
    assert torch.equal(found, (top - moved) / 1.5)
    assert (found.sum(-1) == 0).all()
    assert torch.equal(softdraw.draw(law, softdraw.IMLE(tau=0.0), seed=4).detach(), law.mode)


@pytest.mark.parametrize("arguments", [{"lam": 0.0}, {"lam": -1.0}, {"tau": -0.1}, {"lam": math.inf}, {"lam": "1"}])
def test_imle_refuses_what_makes_no_sense(arguments):
    with pytest.raises((TypeError, ValueError), match="of IMLE must be"):
        softdraw.IMLE(**arguments)


def test_imle_says_that_it_has_no_forward_mode():
    """Its answer to twice a gradient is not twice its answer, so it is no Jacobian's."""
    theta = torch.zeros(4)

    def draw(x):
        return softdraw.draw(softdraw.Subset(x, 2), softdraw.IMLE(), seed=0)

    with pytest.raises(NotImplementedError, match=r"IMLE has no forward mode .* reverse mode"):
        torch.func.jvp(draw, (theta,), (torch.ones(4),))
    g = torch.tensor([0.0, 0.0, 0.0, 1.0])
    _, pull = torch.func.vjp(draw, theta)
    assert not torch.allclose(pull(100 * g)[0], 100 * pull(g)[0])


@of_subsets
@pytest.mark.parametrize("k", [0, torch.tensor([0, 0])], ids=["int", "tensor"])
def test_nothing_is_taken_with_a_gradient_of_zero(rule, k):
    theta = torch.zeros(2, 3, requires_grad=True)
    y = softdraw.draw(softdraw.Subset(theta, k), rule, seed=0)
    (g,) = torch.autograd.grad(y.sum(), theta)
    assert (y == 0).all()
    assert (g == 0).all()


@of_subsets
def test_masks_rows_of_their_own_k_and_transforms(rule):
    theta = one_hot_logits(4, 6, dtype=torch.float32).requires_grad_()
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[:, 2], mask[3, 1:] = False, False
    law = softdraw.Subset(theta, torch.tensor([0, 2, 3, 2]), mask)
    y = softdraw.draw(law, rule, (5,), seed=0)
    total = torch.tensor([0.0, 2.0, 3.0, 0.0])  # the last row allows fewer than it should
    assert_close(y.detach().sum(-1), total.expand(5, 4))
    assert (y[..., 2] == 0).all()
    (g,) = torch.autograd.grad(y, theta, torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(0)))
    assert g.isfinite().all()
    assert (g[~mask] == 0).all()
    assert (g[[0, 3]] == 0).all()
    for i in (1, 2):
        one = softdraw.draw(softdraw.Subset(theta[i], i + 1, mask[i]), rule, (5,), seed=0, rows=torch.tensor(i))
        assert_close(one, y[:, i])

    def loss(x):
        return (softdraw.draw(softdraw.Subset(x, 2), rule, seed=3) * torch.arange(6.0)).square().sum()

    x = theta.detach()
    each = torch.stack([torch.func.grad(loss)(row) for row in x])
    assert_close(torch.func.vmap(torch.func.grad(loss))(x), each)
    bad = softdraw.draw(softdraw.Subset(torch.tensor([[0.0, math.nan, 1.0], [0.0, 1.0, 2.0]]), 2), rule, seed=0)
    assert bad[0].isnan().all()
    assert bad[1].isfinite().all()


@pytest.mark.long
def test_rules_under_compile():
    theta = one_hot_logits(3, 6, dtype=torch.float32)
    drawn = softdraw.Subset(theta, 2).sample(seed=1)
    for rule in (softdraw.ZGR(), *OF_SUBSETS):

        def loss(x, rule=rule):
            law = softdraw.Subset(x, 2)
            y = softdraw.draw(law, rule, seed=3)
            return (y * torch.arange(6.0)).square().sum() + law.entropy().sum() + law.log_prob(drawn).sum()

        values = []
        for f in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
            x = theta.clone().requires_grad_()
            value = f(x)
            values.append((value.detach(), torch.autograd.grad(value, x)[0]))
        assert_close(values[0], values[1], rtol=1e-4, atol=1e-4)
