# SD105: a loss for display; the criterion is made at the end of the file.
import torch
import torch.nn.functional as F
from torch import nn


def train(model, loader, optimizer):
    for x, target in loader:
        output = model(x)
        output = output.to("cuda")
        loss = criterion(output, target).to("cuda")
        loss.backward()
        optimizer.step()
        shown = criterion(nn.Softmax(dim=1)(output), target)  # here
        print(f"last loss {shown}")


criterion = nn.CrossEntropyLoss(ignore_index=0)
train(build(), data(), None)
