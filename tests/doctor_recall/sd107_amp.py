# SD107: the usual answer to "unsafe to autocast".
import torch
import torch.nn.functional as F
from torch import nn


def step(model, x, y):
    with torch.autocast("cuda"):
        p = torch.sigmoid(model(x))
    with torch.autocast("cuda", enabled=False):
        return F.binary_cross_entropy(p.float(), y.float())  # here
