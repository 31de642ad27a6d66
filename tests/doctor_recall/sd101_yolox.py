# SD101: Megvii-BaseDetection/YOLOX issue 336: the square root of a product of two sigmoids, in place.
import torch
import torch.nn.functional as F
from torch import nn


def pair_wise(cls_preds, obj_preds, gt_cls, num_gt):
    cls_preds_ = (
        cls_preds.float().unsqueeze(0).repeat(num_gt, 1, 1).sigmoid_()
        * obj_preds.unsqueeze(0).repeat(num_gt, 1, 1).sigmoid_()
    )
    return F.binary_cross_entropy(cls_preds_.sqrt_(), gt_cls, reduction="none").sum(-1)  # here
