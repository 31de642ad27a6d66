# SD105: Lightning-Universe/lightning-bolts issue 654: forward is a softmax, log_softmax follows, then nll_loss.
import lightning as pl
import torch
import torch.nn.functional as F
from torch import nn


class LogisticRegression(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        x = self.linear(x)
        y_hat = F.softmax(x, dim=1)
        return y_hat

    def training_step(self, batch, index):
        x, y = batch
        y_hat = self.forward(x.view(x.size(0), -1))
        return F.nll_loss(F.log_softmax(y_hat, dim=1), y)  # here
