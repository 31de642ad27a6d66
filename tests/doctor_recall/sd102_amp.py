# SD102: kaggle training loops: autocast, the model's sigmoid inside.
import torch
import torch.nn.functional as F
from torch import nn


def train(model, loader, scaler):
    criterion = nn.BCELoss()
    for x, y in loader:
        with torch.cuda.amp.autocast():
            loss = criterion(torch.sigmoid(model(x)), y)  # here
        scaler.scale(loss).backward()
