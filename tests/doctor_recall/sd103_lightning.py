# SD103: Lightning-AI/pytorch-lightning issue 501.
import torch
import torch.nn.functional as F
from torch import nn


def training_step(self, batch, index):
    x, y = batch
    y_hat = self.forward(x)
    loss = nn.CrossEntropyLoss(y_hat, y)  # here
