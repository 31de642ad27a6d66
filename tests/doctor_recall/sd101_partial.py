# SD101: a configuration of losses with functools.partial.
from functools import partial
import torch
import torch.nn.functional as F
from torch import nn

LOSSES = {"bce": partial(F.binary_cross_entropy, reduction="sum"), "l1": F.l1_loss}


def step(model, x, y):
    p = torch.sigmoid(model(x))
    return LOSSES["bce"](p, y)  # here
