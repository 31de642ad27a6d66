# SD104: itakurah/focal-loss-pytorch pull request 5: the sigmoid's name is kept beside the focal factor.
import torch
import torch.nn.functional as F
from torch import nn


class FocalLoss(nn.Module):
    def __init__(self, gamma=2, alpha=0.25):
        super().__init__()
        self.gamma, self.alpha = gamma, alpha

    def binary_focal_loss(self, inputs, targets):
        probs = torch.sigmoid(inputs)
        targets = targets.float()
        bce_loss = F.binary_cross_entropy_with_logits(probs, targets, reduction="none")  # here
        return ((1 - probs) ** self.gamma * bce_loss).mean()
