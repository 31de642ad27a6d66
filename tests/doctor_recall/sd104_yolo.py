# SD104: argusswift/YOLOv4-pytorch issue 89: slices of a decoded tensor.
import torch
import torch.nn.functional as F
from torch import nn


class YoloLoss(nn.Module):
    def forward(self, raw, label):
        BCE = nn.BCEWithLogitsLoss(reduction="none")
        pred_conf = torch.sigmoid(raw[..., 4:5])
        pred_cls = torch.sigmoid(raw[..., 5:])
        loss_conf = label[..., 4:5] * BCE(input=pred_conf, target=label[..., 4:5])  # here
        return loss_conf.sum() + BCE(input=pred_cls, target=label[..., 5:]).sum()
