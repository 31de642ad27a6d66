"""A seed for every sample: a sample draws what it draws alone with its seed, in every function that takes one."""

import pytest
import torch

import softdraw
from tests.methods import PATHWISE, SCORE, label

X = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
SEEDS = softdraw.fold_in(0, torch.arange(4))


def gradients(call, x, seed, rows=0):
    leaf = x.clone().requires_grad_()
    y = call(leaf, seed, rows)
    if not y.requires_grad:
        return y, torch.zeros_like(x)
    (y * torch.linspace(-1, 1, y.shape[-1])).sum().backward()
    return y.detach(), leaf.grad


def law(kind):
    return lambda x, seed, rows: getattr(softdraw, kind)(x).rsample(seed=seed, rows=rows)


def relaxed(x, seed, rows):
    return softdraw.RelaxedOneHotCategorical(0.7, logits=x).rsample(seed=seed, rows=rows)


def estimated(rule):
    return lambda x, seed, rows: softdraw.expect(
        lambda y: (y[..., 0] - 0.3) ** 2, softdraw.OneHotCategorical(x), rule, seed=seed, rows=rows
    )


SEEDED = {
    "soft": lambda x, seed, rows: softdraw.gumbel_softmax(x, 0.7, seed=seed, rows=rows),
    "hard": lambda x, seed, rows: softdraw.gumbel_softmax(x, 0.7, hard=True, seed=seed, rows=rows),
    "index": lambda x, seed, rows: softdraw.gumbel_max(x, seed=seed, rows=rows),
    "module": lambda x, seed, rows: softdraw.nn.GumbelSoftmax(0.7)(x, seed=seed, rows=rows),
    "noise": lambda x, seed, rows: softdraw.gumbel_noise(x.shape, seed=seed, rows=rows),
    "law": law("OneHotCategorical"),
    "bits": law("Bernoulli"),
    "relaxed": relaxed,
}
SEEDED |= {
    f"draw {label(rule)}": lambda x, seed, rows, rule=rule: softdraw.draw(x, rule, seed=seed, rows=rows)
    for rule in PATHWISE
}
CONTROLLED = softdraw.Relax(control=lambda y: 0.7 * y[..., 0] ** 2, tau=0.8)
EXPECTED = [*PATHWISE, *(rule for rule in SCORE if type(rule) not in (softdraw.DisARM, softdraw.Relax)), CONTROLLED]
SEEDED |= {f"expect {label(rule)}": estimated(rule) for rule in EXPECTED}


@pytest.mark.parametrize("name", SEEDED)
@pytest.mark.usefixtures("each_body")
def test_a_sample_with_its_seed_draws_what_it_draws_alone(name):
    call = SEEDED[name]
    for rows in (0, 7):
        y, g = gradients(call, X, SEEDS, rows)
        for i in range(len(X)):
            alone, slope = gradients(call, X[i], SEEDS[i], rows)
            torch.testing.assert_close(y[i], alone, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(g[i], slope, rtol=1e-4, atol=1e-6)
    # Seeds for every row, the rows of a sample having that of the sample: each row is then row 0 of its seed.
    if not name.startswith("bits"):
        each, _ = gradients(call, X, SEEDS.unsqueeze(-1).expand(4, 3), torch.arange(3).expand(4, 3))
        whole, _ = gradients(call, X, SEEDS, torch.arange(3).expand(4, 3))
        torch.testing.assert_close(each, whole, rtol=1e-5, atol=1e-6)


def test_disarm_takes_seeds_of_samples():
    def estimate(theta, seed):
        leaf = theta.clone().requires_grad_()
        bits = torch.distributions.Independent(softdraw.Bernoulli(leaf), 1)
        softdraw.expect(lambda b: (b.sum(-1) - 0.4) ** 2, bits, softdraw.DisARM(2), seed=seed).sum().backward()
        return leaf.grad

    theta = X[:, 0]
    whole = estimate(theta, SEEDS)
    for i in range(4):
        torch.testing.assert_close(whole[i], estimate(theta[i], SEEDS[i]))


def test_streams_under_seeds_of_samples():
    drawn = softdraw.gumbel_max(X, sample_shape=(3,), seed=SEEDS)
    for i in range(4):
        assert torch.equal(drawn[:, i], softdraw.gumbel_max(X[i], sample_shape=(3,), seed=SEEDS[i]))
