# SD101: microsoft/qlib pull request 756: layers are appended to a list.
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self, dims):
        super().__init__()
        dnn_layers = []
        for i, o in zip(dims[:-1], dims[1:]):
            dnn_layers.append(nn.Linear(i, o))
        dnn_layers.append(nn.Sigmoid())
        self.dnn = nn.Sequential(*dnn_layers)

    def forward(self, x):
        return self.dnn(x)


class DNNModel:
    def __init__(self):
        self.dnn_model = Net((8, 1))
        self._scorer = nn.BCELoss()

    def fit(self, x, y):
        preds = self.dnn_model(x)
        return self._scorer(preds, y)  # here
