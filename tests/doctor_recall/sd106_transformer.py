# SD106: AnubhavGupta3377/Text-Classification-Models-Pytorch issue 9: the softmax is a layer in self, the criterion is attached to the model.
import torch
import torch.nn.functional as F
from torch import nn


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(512, 4)
        self.softmax = nn.Softmax()

    def forward(self, x):
        final_out = self.fc(x)
        return self.softmax(final_out)

    def add_loss_op(self, loss_op):
        self.loss_op = loss_op

    def run_epoch(self, x, y):
        return self.loss_op(self.__call__(x), y)  # here


model = Transformer()
model.add_loss_op(nn.NLLLoss())
