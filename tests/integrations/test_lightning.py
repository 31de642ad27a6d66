"""Lightning takes a TauScheduler as a learning rate scheduler, and our callback; both go on from its checkpoint."""

import pytest
import torch

import softdraw
from softdraw.integrations.lightning import DrawCallback
from softdraw.schedules import TauScheduler, linear

pytestmark = [pytest.mark.integrations, pytest.mark.filterwarnings("ignore")]
lightning = pytest.importorskip("lightning", reason="pip install lightning")


def model():
    class Net(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer, self.draw = torch.nn.Linear(4, 4), softdraw.nn.GumbelSoftmax()
            self.taus = []

        def training_step(self, batch, index):
            self.taus.append(self.draw.tau.item())
            return self.draw(self.layer(batch)).pow(2).sum()

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), 0.1)
            scheduler = TauScheduler(self, linear(1.0, 0.5, 10), optimizer=optimizer)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    return Net()


def fit(folder, epochs, checkpoint=None):
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    net, data = model(), torch.utils.data.DataLoader(torch.randn(8, 4), batch_size=2)
    trainer.fit(net, data, ckpt_path=checkpoint)
    return net, trainer


def test_tau_is_annealed_and_restored(tmp_path):
    net, trainer = fit(tmp_path, epochs=1)
    assert net.taus == [pytest.approx(1 - 0.05 * step) for step in range(4)]
    assert net.draw.tau.item() == pytest.approx(0.8)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.1
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    resumed, _ = fit(tmp_path, epochs=3, checkpoint=tmp_path / "run.ckpt")
    assert resumed.taus == [pytest.approx(max(1 - 0.05 * step, 0.5)) for step in range(4, 12)]


class Quantiser(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.book = softdraw.nn.Codebook(4, 6, 4, groups=2, rule=softdraw.ReinMax(tau=9.0))
        self.draw = softdraw.nn.GumbelSoftmax(tau=9.0)
        self.taus, self.chosen = [], []

    def training_step(self, batch, index):
        self.taus.append(self.book.tau.item())
        codes = self.book(batch)
        self.chosen.append(codes.index)
        return codes.value.square().sum() + self.draw(batch).square().sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def fit_with_callback(folder, steps, checkpoint=None, schedules=None, **settings):
    seen = []

    class Reporter(lightning.Callback):
        def on_train_batch_end(self, trainer, *_):
            seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    callback = DrawCallback(schedules, **{"every": 2} if "log_every_n_steps" not in settings else {})
    trainer = lightning.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[callback, Reporter()],
        **settings,
    )
    torch.manual_seed(0)
    net, data = Quantiser(), torch.utils.data.DataLoader(torch.randn(16, 4), batch_size=2)
    trainer.fit(net, data, ckpt_path=checkpoint)
    return net, trainer, seen


def test_the_callback_follows_the_step_and_a_checkpoint(tmp_path):
    net, trainer, _ = fit_with_callback(tmp_path, 4, schedules=linear(1.0, 0.5, 10))
    assert net.taus == pytest.approx([1 - 0.05 * step for step in range(4)])
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    resumed, _, _ = fit_with_callback(tmp_path, 8, tmp_path / "run.ckpt", schedules={"tau": linear(1.0, 0.5, 10)})
    assert resumed.taus == pytest.approx([1 - 0.05 * step for step in range(4, 8)])
    assert resumed.draw.tau.item() == pytest.approx(0.6)


def test_the_callback_logs_tau_and_the_usage_since_the_last_log(tmp_path):
    net, _, seen = fit_with_callback(tmp_path, 4, schedules=linear(1.0, 0.5, 10))
    assert "tau" not in seen[0]
    for log, tau, chosen in ((seen[1], 0.95, net.chosen[:2]), (seen[3], 0.85, net.chosen[2:])):
        shares = torch.nn.functional.one_hot(torch.cat(chosen), 6).double().mean(0)
        assert log["tau"] == pytest.approx(tau)
        assert log["book/perplexity"] == pytest.approx(torch.exp(-torch.xlogy(shares, shares).sum(-1)).mean().item())
        assert log["book/active_codes"] == (shares > 0).sum()
        assert 1 <= log["draw/active_codes"] <= 4
    assert not any(module._forward_hooks for module in net.modules())


def test_the_callback_counts_steps_of_the_optimizer_and_logs_as_the_trainer_does(tmp_path):
    schedule = linear(1.0, 0.5, 10)
    net, _, seen = fit_with_callback(tmp_path, 2, schedules=schedule, accumulate_grad_batches=2, log_every_n_steps=1)
    assert net.taus == pytest.approx([1, 1, 0.95, 0.95])
    assert "tau" not in seen[0]
    assert seen[1]["tau"] == 1.0
    _, _, seen = fit_with_callback(tmp_path, 2)
    assert seen[1]["book/tau"] == seen[1]["draw/tau"] == 9.0


def test_the_hooks_are_off_after_an_exception(tmp_path, monkeypatch):
    nets = []

    def fail(self, *_):
        nets.append(self)
        raise ZeroDivisionError

    monkeypatch.setattr(Quantiser, "training_step", fail)
    with pytest.raises(ZeroDivisionError):
        fit_with_callback(tmp_path, 2)
    assert not any(module._forward_hooks for module in nets[0].modules())
