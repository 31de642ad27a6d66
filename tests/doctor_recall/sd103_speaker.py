# SD103: imranparuk/speaker-recognition-3d-cnn issue 2: the module under an alias.
import torch.nn.modules.loss as losses
import torch
import torch.nn.functional as F
from torch import nn


def train(output, labels):
    return losses.CrossEntropyLoss(output, labels)  # here
