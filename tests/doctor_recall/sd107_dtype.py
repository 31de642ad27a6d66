# SD107: p.to(torch.float32) through a model's tail.
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        return self.head(x).sigmoid()


net, criterion = Net(), nn.BCELoss()


def step(x, y):
    p = net(x)
    return criterion(p.to(torch.float32), y)  # here
