# SD108: a third positional argument.
import torch
import torch.nn.functional as F
from torch import nn


def loss(logits, target, pos_wt):
    return F.binary_cross_entropy_with_logits(logits, target, pos_wt)  # here
