"""``examples/train_against_stock.py``: the model it writes in stock torch is the one that ``softdraw train`` trains."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path

import pytest
import torch

from softdraw.recipes.autoencoder import loop
from softdraw.recipes.autoencoder.loop import Trainer
from softdraw.recipes.autoencoder.model import kl_of_images, reconstruction
from softdraw.recipes.autoencoder.settings import Settings
from softdraw.recipes.runs.ranks import Ranks

pytest.importorskip("sklearn")
FILE = Path(__file__).parent.parent / "examples" / "train_against_stock.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("train_against_stock", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trainer(**settings):
    return Trainer(Settings(epochs=2, **settings), torch.device("cpu"), Ranks())


@pytest.mark.parametrize("rule", ["GumbelSoftmax", "ZGR"])
def test_with_one_draw_both_models_are_trained_alike(example, rule):
    """Ten steps at the draws of softdraw: equal losses, then equal weights."""
    ours = trainer(rule=rule, kl_warmup=0.1)
    drawn = []

    def as_ours(logits, tau):
        assert tau == ours.tau.get_last_value()
        return ours.model.draw(logits, *drawn)

    stock = example.Stock(ours, as_ours)
    for ids in torch.randperm(len(ours.train), generator=torch.Generator().manual_seed(0)).split(64)[:10]:
        state = ours.generator.get_state()
        drawn[:] = [ours._seed(), ids]
        ours.generator.set_state(state)
        theirs = stock.step(ids)
        assert theirs.item() == pytest.approx(ours.step(ids).item(), rel=1e-5)
    for mine, other in zip(ours.model.encoder.parameters(), stock.encoder.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)  # Adam divides by gradients near zero
    for mine, other in zip(ours.model.decoder.parameters(), stock.decoder.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


def test_straight_through_by_hand_in_the_example(example):
    logits = torch.randn(6, 4, 5, requires_grad=True)
    y = example.straight_through(logits, 1.0)
    assert torch.equal(y.detach().round(decimals=5).sum(-1), torch.ones(6, 4))
    grad = torch.randn(6, 4, 5)
    p = logits.detach().softmax(-1)
    expected = p * (grad - (p * grad).sum(-1, keepdim=True))
    torch.testing.assert_close(torch.autograd.grad(y, logits, grad)[0], expected)


def test_compare_reports_times_and_losses_of_both(example):
    threads = torch.get_num_threads()
    try:
        (stock, ours), losses = example.compare("GumbelSoftmax", example.gumbel_softmax, 1, 2)
    finally:
        torch.set_num_threads(threads)
    assert 1e-5 < stock < 1
    assert 1e-5 < ours < 1
    assert losses[0] == pytest.approx(losses[1], rel=0.05)  # two seeds of one model
    assert losses[0] < 44.4  # 64 log 2: what a decoder that knows nothing pays


def test_an_older_checkpoint_with_tau_among_the_weights_is_continued():
    one, two = trainer(), trainer()
    one.epoch()
    state = copy.deepcopy(one.state())
    assert "tau" not in state["model"]
    two.load({**state, "model": {**state["model"], "tau": torch.tensor(0.123)}})
    assert two.model.tau == one.model.tau != 1.0
    assert one.epoch()["objective"] == two.epoch()["objective"]


@pytest.mark.parametrize("chunk", [7, 100, 512])
def test_an_evaluation_decodes_each_image_from_its_neighbours_code(chunk, monkeypatch):
    """Whatever is evaluated at once: the neighbour is the next image, and the first one's is that of the last."""
    monkeypatch.setattr(loop, "_CHUNK", chunk)
    run = trainer()
    x = run.valid[:100]
    with torch.no_grad():
        for weight in run.model.parameters():
            weight.mul_(3)  # so that the code matters
        logits, index = run.codes(x, torch.arange(100), 3)
        errors = [
            reconstruction(run.model.decode(torch.nn.functional.one_hot(i, 10).float()), x).mean(0).double().mean()
            for i in (index, index.roll(-1, 1))
        ]
        kl = kl_of_images(logits).double().mean()
    found = run.evaluate(x, 3)
    assert found["reconstruction"] == pytest.approx(float(errors[0]), rel=1e-5)
    assert found["kl"] == pytest.approx(float(kl), rel=1e-5)
    assert found["shuffled_nelbo"] == pytest.approx(float(errors[1] + kl), rel=1e-5)
    assert abs(found["nelbo"] - found["shuffled_nelbo"]) > 0.1
