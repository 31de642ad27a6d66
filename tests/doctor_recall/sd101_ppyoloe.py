# SD101: Nioolek/PPYOLOE_pytorch issue 16: scores through a sigmoid, the loss in a method of the class.
import torch
import torch.nn.functional as F
from torch import nn


class PPYOLOEHead(nn.Module):
    def _varifocal_loss(self, pred_score, gt_score, label):
        weight = 0.75 * pred_score.pow(2.0) * (1 - label) + gt_score * label
        loss = F.binary_cross_entropy(pred_score, gt_score, weight=weight, reduction="sum")  # here
        return loss

    def forward_train(self, feat, gt_score, label):
        pred_scores = torch.sigmoid(self.pred_cls(feat))
        return self._varifocal_loss(pred_scores, gt_score, label)
