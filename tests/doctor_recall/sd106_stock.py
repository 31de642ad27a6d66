# SD106: midas-research/man-sf-emnlp issue 2: softmax between model and loss.
import torch
import torch.nn.functional as F
from torch import nn


def train(epoch, model, adj, price, label):
    model.train()
    output = model(price, adj)
    loss_train = F.nll_loss(F.softmax(output, dim=1), torch.max(label, 1)[1])  # here
    loss_train.backward()
