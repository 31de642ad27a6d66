# SD107: the model's sigmoid runs inside autocast, the loss behind it, cast and reshaped.
from torch.cuda.amp import autocast
import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def forward(self, x):
        return torch.sigmoid(self.head(self.pool(x))).squeeze(-1)


def train_epoch(data, optimizer, scaler, steps):
    model = Attention().cuda()
    for embedding, label in data:
        with autocast():
            pred = model(embedding)
        loss = F.binary_cross_entropy(pred.float().view(-1), label.float()) / steps  # here
        scaler.scale(loss).backward()
