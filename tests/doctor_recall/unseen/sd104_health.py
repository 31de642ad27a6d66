# SD104: the same variable before and after the sigmoid, a criterion of the batch.
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def forward(self, h, labels):
        y_h = self.out(h)
        y_h = torch.sigmoid(y_h)
        pos_weight = torch.FloatTensor(self.loss_weights).cuda()
        criterion = nn.BCEWithLogitsLoss(pos_weight=pos_weight)

        y_loss = criterion(y_h, labels)  # here
        return y_loss + 0.1 * torch.norm(h)
