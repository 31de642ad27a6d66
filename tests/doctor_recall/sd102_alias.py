# SD102: autocast under another name, the context in a variable.
from torch.cuda.amp import autocast as amp
import torch
import torch.nn.functional as F
from torch import nn


def train(model, x, y, criterion):
    context = amp()
    with context:
        loss = F.binary_cross_entropy(model(x), y)  # here
