# SD104: yudi-mars/daisyRec pull request 15: the criterion is chosen from the configuration.
import torch
import torch.nn.functional as F
from torch import nn


class FM(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.loss_type = config["loss_type"]

    def forward(self, user, item):
        pred = (self.embed_user(user) * self.embed_item(item)).sum(-1)
        return torch.sigmoid(pred)

    def calc_loss(self, batch):
        pos_pred = self.forward(batch[0], batch[1])
        if self.loss_type == "CL":
            return self.criterion()(pos_pred, batch[2])  # here

    def criterion(self):
        return nn.BCEWithLogitsLoss(reduction="sum")
