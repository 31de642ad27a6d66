# SD101: bcmi/SLBR-Visible-Watermark-Removal issue 10: two attributes in one assignment, a list of outputs.
import torch
import torch.nn.functional as F
from torch import nn


class Losses(nn.Module):
    def __init__(self):
        super().__init__()
        self.masked_l1_loss, self.mask_loss = nn.L1Loss(), nn.BCELoss()

    def forward(self, mask_logits, mask):
        pred = torch.sigmoid(mask_logits)
        return self.mask_loss(pred, mask)  # here
