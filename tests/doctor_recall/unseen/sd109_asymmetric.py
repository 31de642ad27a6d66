# SD109: the probabilities are clamped under the same name, then both logarithms are taken.
import torch
import torch.nn.functional as F
from torch import nn


def asymmetric_loss(logits, targets, fp_weight, fn_weight):
    probs = torch.sigmoid(logits)
    eps = 1e-7
    probs = torch.clamp(probs, eps, 1 - eps)
    loss = -(fn_weight * targets * torch.log(probs) + fp_weight * (1 - targets) * torch.log(1 - probs))  # here
    return loss.mean()
