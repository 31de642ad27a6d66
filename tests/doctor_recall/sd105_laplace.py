# SD105: runame/laplace-redux pull request 1: a helper predicts probabilities.
import torch
import torch.nn.functional as F
from torch import nn


def predict(model, x):
    return torch.softmax(model(x), dim=-1)


def evaluate(model, loader):
    loss_fn = nn.CrossEntropyLoss()
    for x, y in loader:
        py = predict(model, x)
        print(loss_fn(py, y).item())  # here
