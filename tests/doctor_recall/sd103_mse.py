# SD103: pytorch/pytorch issue 15337.
import torch
import torch.nn.functional as F
from torch import nn

a = torch.randn(1, 10)
b = torch.randn(1, 10)
loss = torch.nn.MSELoss(a, b)  # here
