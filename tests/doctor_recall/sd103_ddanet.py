# SD103: nikhilroxtomar/DDANet issue 1: from torch.nn import the class.
from torch.nn import BCEWithLogitsLoss
import torch
import torch.nn.functional as F
from torch import nn


def train(model, x, m):
    m_pred = model(x)
    loss = BCEWithLogitsLoss(m_pred, m)  # here
