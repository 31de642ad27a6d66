# SD101: SysCV/transfiner issue 43: a sum of losses, the mask through a sigmoid in another function of the file.
import torch
import torch.nn.functional as F
from torch import nn


def mask_rcnn_loss(pred_logits, pred_uncertain, gt):
    mask_loss = F.binary_cross_entropy_with_logits(pred_logits, gt)
    return mask_loss + F.binary_cross_entropy(pred_uncertain, gt, reduction="mean")  # here


class MaskHead(nn.Module):
    def forward(self, x, gt):
        uncertain = self.predictor(x).sigmoid()
        return mask_rcnn_loss(self.logits(x), uncertain, gt)
