# SD104: aidotse/LeakPro issue 229: forward ends in a sigmoid, a handler returns the criterion.
import torch
import torch.nn.functional as F
from torch import nn


class AdultNet(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.fc1 = nn.Linear(n, 64)
        self.fc2 = nn.Linear(64, 1)

    def forward(self, x):
        return torch.sigmoid(self.fc2(torch.relu(self.fc1(x))))


class AdultInputHandler:
    def get_criterion(self):
        return nn.BCEWithLogitsLoss()

    def train(self, loader):
        model = AdultNet(10)
        criterion = self.get_criterion()
        for data, target in loader:
            output = model(data)
            loss = criterion(output, target.float())  # here
