# SD105: a tuple of outputs, as in attention classifiers: out, weights = model(x).
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        weights = self.attend(x)
        return F.softmax(self.out(weights * x), dim=1), weights


net, criterion = Net(), nn.CrossEntropyLoss()


def step(x, y):
    out, weights = net(x)
    return criterion(out, y)  # here
