"""``draw`` under second derivatives, torch.func, torch.compile, torch.export and checkpointing, for every rule."""

import pytest
import torch
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import softdraw
from tests.methods import HARD, PATHWISE, label, one_hot_logits


@pytest.mark.parametrize("rule", PATHWISE, ids=label)
def test_second_derivatives(rule):
    # A given sample's noise follows the logits; the relaxation's first derivative holds it fixed, so there it is drawn.
    value = VALUE if rule in HARD else None
    weight = one_hot_logits(3, 4, seed=1).requires_grad_()

    def gradient(theta, w):
        y = softdraw.draw(softdraw.OneHotCategorical(theta), rule, value=value, seed=2)
        return torch.autograd.grad(y, theta, w, create_graph=True)[0]

    theta = one_hot_logits(3, 4).requires_grad_()
    torch.autograd.gradcheck(gradient, (theta, weight), atol=1e-6)


VALUE = torch.nn.functional.one_hot(torch.tensor([1, 3, 0]), 4).double()


@pytest.mark.parametrize("rule", PATHWISE, ids=label)
def test_vmap_and_func_grad(rule):
    logits, weight = one_hot_logits(5, 3, 4), one_hot_logits(3, 4, seed=1)

    def loss(theta, seed):
        return (softdraw.draw(softdraw.OneHotCategorical(theta), rule, (2,), seed=seed) * weight).square().sum()

    seeds = torch.arange(5)
    mapped = torch.func.vmap(torch.func.grad(loss))(logits, seeds)
    shared = torch.func.vmap(torch.func.grad(loss), in_dims=(0, None))(logits, seeds[0])
    for i in range(5):
        for found, seed in ((mapped, seeds[i]), (shared, seeds[0])):
            leaf = logits[i].clone().requires_grad_()
            assert_close(found[i], torch.autograd.grad(loss(leaf, seed), leaf)[0])
    fresh = torch.func.vmap(lambda t: softdraw.draw(softdraw.OneHotCategorical(t), rule), randomness="different")
    y = fresh(torch.zeros(64, 4, 5))
    assert len({tuple(row.tolist()) for row in y.argmax(-1)}) > 20


@pytest.mark.parametrize("rule", PATHWISE, ids=label)
def test_compiled_is_eager(rule):
    torch._dynamo.reset()
    logits, weight = one_hot_logits(6, 5), one_hot_logits(6, 5, seed=1)

    def function(theta):
        return softdraw.draw(softdraw.OneHotCategorical(theta), rule, seed=3)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    found = []
    for call in (function, compiled):
        leaf = logits.clone().requires_grad_()
        y = call(leaf)
        found.append((y.detach(), torch.autograd.grad(y, leaf, weight)[0]))
    assert_close(found[0], found[1])


@pytest.mark.parametrize("rule", PATHWISE, ids=label)
def test_checkpointed_without_rng_state(rule):
    logits, weight = one_hot_logits(6, 5), one_hot_logits(6, 5, seed=1)

    def loss(theta, seed):
        return (softdraw.draw(softdraw.OneHotCategorical(theta), rule, seed=seed) * weight).square().sum()

    leaf = logits.clone().requires_grad_()
    (plain,) = torch.autograd.grad(loss(leaf, torch.tensor(5)), leaf)
    again = checkpoint(loss, leaf, torch.tensor(5), use_reentrant=False, preserve_rng_state=False)
    assert torch.equal(torch.autograd.grad(again, leaf)[0], plain)


@pytest.mark.parametrize("rule", PATHWISE, ids=label)
def test_exported_is_eager(rule):
    class Draw(torch.nn.Module):
        def forward(self, logits, seed):
            return softdraw.draw(softdraw.OneHotCategorical(logits), rule, seed=seed)

    inputs = (one_hot_logits(6, 5), torch.tensor(3))
    assert torch.equal(torch.export.export(Draw(), inputs).module()(*inputs), Draw()(*inputs))


@pytest.mark.parametrize("rule", [rule for rule in PATHWISE if not isinstance(rule, softdraw.GumbelSoftmax)], ids=label)
@pytest.mark.parametrize("law", [softdraw.OneHotCategorical, softdraw.Bernoulli])
def test_forward_mode_is_the_transpose_of_the_gradient(rule, law):
    """<g, jvp(t)> = <vjp(g), t>: the derivative of the sample in direction t and the gradient are one linear map."""
    x, t, g = (torch.randn(4, 5, generator=torch.Generator().manual_seed(i), dtype=torch.float64) for i in range(3))

    def draw(x):
        return softdraw.draw(law(x), rule, seed=2)

    y, tangent = torch.func.jvp(draw, (x,), (t,))
    assert torch.equal(y, draw(x))
    leaf = x.clone().requires_grad_()
    (dx,) = torch.autograd.grad(draw(leaf), leaf, g)
    torch.testing.assert_close((g * tangent).sum(), (dx * t).sum(), rtol=1e-9, atol=1e-10)
