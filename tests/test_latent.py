"""The latents of a world model: the mixture, and the balanced divergence with its stops and free nats."""

import pytest
import torch
from torch.testing import assert_close

import softdraw
from softdraw import OneHotCategorical
from softdraw.losses import balanced_kl
from softdraw.nn import Latent
from tests.methods import one_hot_logits


def pair(dtype=torch.float64):
    """Logits of posteriors and priors, ``(5, 3, 4)``: five examples of three latents, some close and some far."""
    scale = torch.tensor([0.1, 0.4, 0.8, 2.0, 4.0], dtype=torch.float64).view(5, 1, 1)
    return tuple((scale * one_hot_logits(5, 3, 4, seed=s)).to(dtype).requires_grad_() for s in (0, 1))


def kl(q, p, u=0.01):
    """By hand, of the mixtures: ``(5, 3)``."""
    a, b = ((1 - u) * x.softmax(-1) + u / 4 for x in (q, p))
    return (a * (a / b).log()).sum(-1)


def laws(q, p):
    return OneHotCategorical(q, uniform=0.01), OneHotCategorical(p, uniform=0.01)


def test_the_draw_is_from_the_mixture():
    module, theta = Latent(None, 3, 4, unimix=0.2), pair()[0]
    choice = module(logits=theta, seed=3)
    law = OneHotCategorical(theta, uniform=0.2)
    y = softdraw.draw(law, softdraw.StraightThrough(), seed=3)
    assert torch.equal(choice.value, y)
    assert torch.equal(choice.index, y.argmax(-1))
    assert_close(choice.law.probs, law.probs)
    w = one_hot_logits(5, 3, 4, seed=7)
    assert_close(torch.autograd.grad(choice.value, theta, w), torch.autograd.grad(y, theta, w))
    assert torch.equal(module.eval()(logits=theta).index, theta.argmax(-1))


def test_straight_through_has_the_gradient_of_the_mixture_s_probabilities():
    """Dreamer: sample + probs - stop_gradient(probs), with probs of the mixture."""
    theta, w = pair()[0], one_hot_logits(5, 3, 4, seed=7)
    value = Latent(None, 3, 4)(logits=theta, seed=1).value
    (exact,) = torch.autograd.grad(0.99 * theta.softmax(-1) + 0.01 / 4, theta, w)
    assert_close(torch.autograd.grad(value, theta, w)[0], exact)


def test_latents_are_summed_before_they_are_clipped():
    q, p = pair()
    each = kl(q, p).detach()
    total = each.sum(-1)
    assert total.min() < 1 < total.max()
    assert ((each < 1).all(-1) & (total > 1)).any()  # here it matters
    expected = 1.1 * total.clamp_min(1)
    assert_close(balanced_kl(*laws(q, p), reduction="none"), expected)
    assert_close(balanced_kl(*laws(q, p)), expected.mean())
    clipped_first = 1.1 * each.clamp_min(1).sum(-1).mean()
    mean_first = 1.1 * total.mean().clamp_min(1)
    for wrong in (clipped_first, mean_first):
        assert not torch.isclose(expected.mean(), wrong, rtol=1e-3)


@pytest.mark.parametrize(("free", "dynamics", "representation"), [(1.0, 1.0, 0.1), (0.5, 0.8, 0.2), (0.0, 0.5, 0.0)])
def test_gradients_stop_where_dreamer_stops_them(free, dynamics, representation):
    q, p = pair()
    loss = balanced_kl(*laws(q, p), free=free, dynamics=dynamics, representation=representation)
    above = kl(q, p).sum(-1) > free
    of_q = torch.autograd.grad(representation * kl(q, p.detach()).sum(-1)[above].sum() / 5, q)[0]
    of_p = torch.autograd.grad(dynamics * kl(q.detach(), p).sum(-1)[above].sum() / 5, p)[0]
    found = torch.autograd.grad(loss, (q, p))
    assert_close(found, (of_q, of_p))
    assert (found[0][~above] == 0).all()
    assert (found[1][~above] == 0).all()


def test_masks_weights_and_sums():
    q, p = pair()
    each = balanced_kl(*laws(q, p), reduction="none").detach()
    keep, w = torch.tensor([True, False, True, True, False]), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    assert_close(balanced_kl(*laws(q, p), mask=keep, reduction="sum"), each[keep].sum())
    assert_close(balanced_kl(*laws(q, p), mask=keep, weight=w), (each * w)[keep].sum() / w[keep].sum())
    spoilt = q.detach().clone()
    spoilt[1] = torch.nan
    spoilt.requires_grad_()
    loss = balanced_kl(*laws(spoilt, p), mask=keep)
    assert_close(loss, each[keep].mean())
    assert torch.autograd.grad(loss, spoilt)[0][keep].isfinite().all()


def test_half_precision_is_computed_in_float32():
    q, p = pair(torch.bfloat16)
    loss = balanced_kl(*laws(q, p))
    assert loss.dtype == torch.float32
    assert_close(loss, balanced_kl(*laws(q.float(), p.float())))


def test_bits_and_a_certain_prior():
    q = softdraw.Bernoulli(torch.tensor([[3.0, -2.0, 0.5]]))
    p = softdraw.Bernoulli(torch.zeros(1, 3))
    expected = torch.distributions.kl_divergence(q, p).sum()
    assert_close(balanced_kl(q, p, free=0.0), 1.1 * expected)
    far = torch.tensor([[[100.0, 0.0]]], requires_grad=True)
    loss = balanced_kl(OneHotCategorical(far, uniform=0.01), OneHotCategorical(-far, uniform=0.01))
    assert_close(loss, torch.tensor(1.1 * 0.99 * torch.tensor(199.0).log().item()))
    assert torch.autograd.grad(loss, far)[0].isfinite().all()


Q = OneHotCategorical(torch.zeros(2, 3, 4))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Latent(6, 0, 4), ValueError, ["latents", "at least 1"]),
        (lambda: Latent(6, 3, 4, unimix=1.0), ValueError, ["unimix", "below 1", "1.0"]),
        (lambda: Latent(6, 3, 4, unimix="1%"), TypeError, ["unimix", "'1%'"]),
        (lambda: Latent(6, 3, 4, rule=1), TypeError, ["rule", "1"]),
        (lambda: balanced_kl(torch.zeros(2, 3, 4), Q), TypeError, ["posterior", "law", "tensor"]),
        (lambda: balanced_kl(Q, torch.distributions.Normal(0.0, 1.0)), TypeError, ["prior", "Normal"]),
        (lambda: balanced_kl(Q, Q[0]), ValueError, ["prior", "(2, 3)", "(3,)"]),
        (lambda: balanced_kl(Q[0, 0], Q[0, 0]), ValueError, ["posterior", "batch", "()"]),
        (lambda: balanced_kl(Q, Q, free=-1.0), ValueError, ["free", "at least 0", "-1.0"]),
        (lambda: balanced_kl(Q, Q, dynamics=float("nan")), ValueError, ["dynamics", "nan"]),
        (lambda: balanced_kl(Q, Q, representation="0.1"), TypeError, ["representation", "'0.1'"]),
        (lambda: balanced_kl(Q, Q, mask=torch.ones(2)), TypeError, ["mask", "bool"]),
        (lambda: balanced_kl(Q, Q, mask=torch.ones(3, dtype=torch.bool)), ValueError, ["mask", "(2,)", "(3,)"]),
        (lambda: balanced_kl(Q, Q, weight=torch.ones(3)), ValueError, ["weight", "(3,)"]),
        (lambda: balanced_kl(Q, Q, reduction="avg"), ValueError, ["reduction", "'avg'"]),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert all(word in str(caught.value) for word in words), caught.value
