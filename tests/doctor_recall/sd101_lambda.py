# SD101: a lambda loss in a dictionary of an experiment.
import torch
import torch.nn.functional as F
from torch import nn

criterion = lambda p, t: F.binary_cross_entropy(p, t).mean()  # here


def step(model, x, y):
    return criterion(torch.sigmoid(model(x)), y)
