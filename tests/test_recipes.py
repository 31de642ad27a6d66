"""The parts of the recipe against references: the terms of the nELBO, tau's path, draws that depend on ids alone."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from softdraw.cli.options import parse_latents, parse_tau
from softdraw.errors import InputError
from softdraw.recipes.autoencoder.data import _sides
from softdraw.recipes.autoencoder.loop import Trainer
from softdraw.recipes.autoencoder.model import Autoencoder, kl_of_images, reconstruction
from softdraw.recipes.autoencoder.settings import Settings
from softdraw.recipes.runs.ranks import Ranks


def test_kl_equals_that_of_torch_distributions():
    logits = torch.randn(5, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    q = torch.distributions.Categorical(logits=logits)
    p = torch.distributions.Categorical(logits=torch.zeros_like(logits))
    torch.testing.assert_close(kl_of_images(logits), torch.distributions.kl_divergence(q, p).sum(-1))


def test_reconstruction_equals_the_bernoulli_likelihood_and_stays_finite():
    x = torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64)
    logits = torch.tensor([[[0.3, -2.0, 5.0]], [[1.0, 1.0, -1.0]]], dtype=torch.float64)
    expected = -torch.distributions.Bernoulli(logits=logits).log_prob(x.expand(2, 1, 3)).sum(-1)
    torch.testing.assert_close(reconstruction(logits, x), expected)
    assert reconstruction(torch.full((1, 3), -500.0), torch.ones(1, 3)) == 1500


@pytest.fixture(scope="module")
def trainer():
    """Untrained, with codes so small that the expectation over them is a sum over all of them."""
    torch.manual_seed(0)
    return Trainer(Settings(groups=2, categories=3, width=16, seed=1), torch.device("cpu"), Ranks())


def test_evaluation_estimates_the_exact_nelbo(trainer):
    """4,096 draws an image beside the sum over all 9 codes; the bound is 5 standard errors of the worst image."""
    x = trainer.valid[:6]
    with torch.no_grad():
        log_q = trainer.model.encode(x).log_softmax(-1)
        exact, worst = torch.zeros(6), torch.zeros(6)
        for code in itertools.product(range(3), repeat=2):
            index = torch.tensor(code).expand(6, 2)
            error = reconstruction(trainer.pixel_logits(index), x)
            q = log_q.gather(-1, index.unsqueeze(-1)).squeeze(-1).sum(-1).exp()
            exact, worst = exact + q * error, torch.maximum(worst, error)
    found = trainer.evaluate(x, draws=4096)
    assert found["reconstruction"] == pytest.approx(
        float(exact.mean()), abs=5 * 0.5 * float((worst - exact).max()) / 64
    )
    assert found["kl"] == pytest.approx(float(kl_of_images(log_q).mean()), rel=1e-4)


def test_draws_depend_on_ids_alone(trainer):
    seed = torch.tensor(7)
    hard = Settings(groups=2, categories=3, rule="StraightThroughGumbel")
    model = Autoencoder(trainer.train.mean(0), hard, torch.Generator().manual_seed(0))
    ids = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model.encode(trainer.train[ids])
        together = model.draw(logits, seed, ids)
        for part in (slice(0, 1), slice(13, 60), slice(99, 100)):
            alone = model.draw(logits[part], seed, ids[part])
            assert torch.equal(together[part], alone)


@pytest.mark.parametrize("images", [1, 7])
def test_gradients_of_ranks_average_to_the_global_one(trainer, monkeypatch, images):
    """Three ranks: slices of 3, 2 and 2 images, or of 1, 0 and 0."""
    ids, seed = torch.arange(images), torch.tensor(3)
    trainer.model.train()
    parameters = list(trainer.model.parameters())
    whole = torch.autograd.grad(trainer.loss(ids, seed), parameters)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(trainer, "ranks", Ranks(rank, 3))
        shares.append(torch.autograd.grad(trainer.loss(ids, seed), parameters))
    for wanted, *parts in zip(whole, *shares, strict=True):
        torch.testing.assert_close(torch.stack(parts).mean(0), wanted)


def test_slices_of_ranks_are_the_whole_batch():
    batch = torch.arange(7)
    for count in (1, 2, 3, 9):
        parts = [Ranks(rank, count).slice(batch) for rank in range(count)]
        assert torch.equal(torch.cat(parts), batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_weights_leave_the_global_generator_alone():
    """Equal seeds give equal weights, whatever the global generator's state."""
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(Autoencoder(torch.full((12,), 0.5), Settings(), torch.Generator().manual_seed(3)))
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("schedule", "middle"), [("linear", 0.75), ("cosine", 0.75), ("exponential", 0.5)])
def test_tau_runs_from_start_to_end(schedule, middle):
    tau = Settings(schedule=schedule).tau(100)
    assert [tau(0), tau(100)] == [1.0, 0.5]
    assert tau(50) == pytest.approx(middle)
    assert Settings(tau_end=1.0, schedule=schedule).tau(100)(37) == 1.0


def test_options_are_parsed():
    assert parse_latents("20x10") == {"groups": 20, "categories": 10}
    assert parse_tau("1.0:0.5") == {"tau_start": 1.0, "tau_end": 0.5}
    assert parse_tau("2") == {"tau_start": 2.0, "tau_end": 2.0}
    with pytest.raises(InputError, match="must be from 1e-38"):
        Settings(tau_end=math.inf)


def test_flat_images_are_shown_near_a_square():
    assert [_sides(n) for n in (784, 12, 7)] == [(28, 28), (3, 4), (1, 7)]
