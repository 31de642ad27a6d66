# SD101: hippolytemayard/therapanacea-project losses: a dictionary of classes.
import torch
import torch.nn.functional as F
from torch import nn

losses_dict = {"BCELoss": nn.BCELoss, "BCEWithLogitsLoss": nn.BCEWithLogitsLoss}


def train(model, loader):
    loss_fn = losses_dict["BCELoss"]()
    for x, y in loader:
        y_hat = torch.sigmoid(model(x))
        loss = loss_fn(y_hat, y)  # here
