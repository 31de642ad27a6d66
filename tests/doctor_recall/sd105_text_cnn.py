# SD105: yongjincho/cnn-text-classification-pytorch issue 1: forward returns F.softmax(logits), criterion in a function's argument.
import torch
import torch.nn.functional as F
from torch import nn


class TextCNN(nn.Module):
    def forward(self, x):
        logits = self.fc(x)
        probs = F.softmax(logits)
        return probs


def train(model, loader, criterion):
    for x, y in loader:
        loss = criterion(model(x), y)  # here
        loss.backward()


train(TextCNN(), load(), nn.CrossEntropyLoss())
