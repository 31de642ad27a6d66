# SD101: gc-os-ai/pyaptamer issue 230: an OrderedDict head in a model that a Lightning module holds.
from collections import OrderedDict
import lightning as pl
import torch
import torch.nn.functional as F
from torch import nn


class AptaTrans(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.fc = nn.Sequential(OrderedDict([("linear", nn.Linear(d, 1)), ("sigmoid", nn.Sigmoid())]))

    def forward(self, x):
        return self.fc(x)


class AptaTransLightning(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = AptaTrans(8)

    def training_step(self, batch, index):
        y_hat = self.model(batch[0])
        return F.binary_cross_entropy(y_hat, batch[1].float())  # here
