"""Lightning takes a TauScheduler where it takes a learning rate scheduler, and restores it from its checkpoint."""

import pytest
import torch

import softdraw
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
