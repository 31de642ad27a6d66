# SD104: Lightning-AI/pytorch-lightning pull request 7096: a functional stored in self, forward ends in a sigmoid.
import lightning as pl
import torch
import torch.nn.functional as F
from torch import nn


class TransferLearningModel(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.__build_model()

    def __build_model(self):
        self.fc = nn.Sequential(nn.Linear(2048, 256), nn.ReLU(), nn.Linear(256, 1))
        self.loss_func = F.binary_cross_entropy_with_logits

    def forward(self, x):
        x = self.fc(x)
        return torch.sigmoid(x)

    def loss(self, logits, labels):
        return self.loss_func(input=logits, target=labels)  # here

    def training_step(self, batch, batch_idx):
        x, y = batch
        y_logits = self.forward(x)
        return self.loss(y_logits, y.view((-1, 1)).type_as(x))
