# SD102: the step of a loop: autocast of amp by its attribute, the loss by its full name.
import torch
import torch.nn.functional as F
from torch import nn


def train(model, loader, optimizer, scaler, criterion=None):
    loss_fn = criterion if criterion is not None else nn.BCELoss()
    for images, masks in loader:
        with torch.cuda.amp.autocast():
            predictions = model(images)
            loss = loss_fn(predictions, masks)  # here
        scaler.scale(loss).backward()
