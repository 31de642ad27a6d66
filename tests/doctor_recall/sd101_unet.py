# SD101: a segmentation model: self.act by a conditional expression.
import torch
import torch.nn.functional as F
from torch import nn


class UNet(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.act = nn.Sigmoid() if n_classes == 1 else nn.Softmax(dim=1)

    def forward(self, x):
        return torch.sigmoid(self.out(x)) if self.training else torch.sigmoid(self.out(x) / 2)


def loss(x, y):
    model = nn.DataParallel(UNet(1)).cuda()
    bce = nn.BCELoss() if y is not None else nn.MSELoss()
    return bce(model(x), y)  # here
