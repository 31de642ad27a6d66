# SD103: the two tensors are elements of a dictionary, and an instance stands unused beside it.
import torch
import torch.nn.functional as F
from torch import nn


class QLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.loss = nn.MSELoss()

    def forward(self, outputs):
        return nn.MSELoss(outputs["out"], outputs["target"])  # here
