# SD105: jindongwang/Deep-learning-activity-recognition issue 10: forward ends in a softmax, the loss is made in the training function.
import torch
import torch.nn.functional as F
from torch import nn


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(9, 32, (1, 9)), nn.ReLU())
        self.fc = nn.Sequential(nn.Linear(500, 6))

    def forward(self, x):
        out = self.conv(x).reshape(-1, 500)
        out = self.fc(out)
        out = F.softmax(out, dim=1)
        return out


def train(model, loader):
    pass


def main(loader):
    model = Network().to(DEVICE)
    criterion = nn.CrossEntropyLoss()
    for x, y in loader:
        output = model(x.to(DEVICE).float())
        loss = criterion(output, y.to(DEVICE))  # here
