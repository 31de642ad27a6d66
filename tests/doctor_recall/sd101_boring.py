# SD101: Lightning-AI/pytorch-lightning issue 13871: self(x) in training_step.
from lightning import LightningModule
import torch
import torch.nn.functional as F
from torch import nn


class BoringModel(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(32, 2)
        self.loss_fn = torch.nn.BCELoss()

    def forward(self, x):
        return torch.sigmoid(self.layer(x))

    def training_step(self, batch, batch_idx):
        output = self(batch[0])
        target = batch[1].half()
        loss = self.loss_fn(output, target)  # here
        return {"loss": loss}
