# SD101: the gradients of an adversary: -1 * self.criterion(...) * weight, the criterion a default.
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn


class Adapt(pl.LightningModule):
    def __init__(self, student, adversary, config, adversarial_criterion=nn.BCELoss()):
        super().__init__()
        self.adversary = adversary
        self.adversarial_criterion = adversarial_criterion
        self.config = config

    def training_step(self, batch, index):
        features, strong = batch
        logits = self.adversary(features)
        return -1 * self.adversarial_criterion(torch.sigmoid(logits), strong) * self.config["weight"]  # here
