# SD105: ariecattan/SciCo issue 2: Lightning, the softmax in the validation step only.
import lightning as pl
import torch
import torch.nn.functional as F
from torch import nn


class MulticlassCrossEncoder(pl.LightningModule):
    def __init__(self, config):
        super().__init__()
        self.linear = nn.Linear(768, 4)
        self.criterion = nn.CrossEntropyLoss()

    def forward(self, x):
        return self.linear(x)

    def validation_step(self, batch, index):
        x, y = batch
        y_hat = self(x)
        y_hat = torch.softmax(y_hat, dim=1)
        loss = self.criterion(y_hat, y)  # here
        self.log("val_loss", loss)
