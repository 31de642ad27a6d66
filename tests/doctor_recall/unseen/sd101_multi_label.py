# SD101: a loss class rebinds its parameter and makes the criterion in forward.
import torch
import torch.nn.functional as F
from torch import nn


class MultiLabelLoss(nn.Module):
    def forward(self, predictions, target):
        predictions = torch.sigmoid(predictions)
        print(predictions.dtype, target.dtype)
        criterion = nn.BCELoss()

        loss = criterion(predictions, target)  # here
        return torch.mean(loss)
