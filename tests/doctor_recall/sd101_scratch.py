# SD101: HiHaker/learn-DL GAN test: a layer and a criterion at module level.
import torch
import torch.nn.functional as F
from torch import nn

m = nn.Sigmoid()
loss = nn.BCELoss()
x = torch.randn(3, requires_grad=True)
target = torch.empty(3).random_(2)
output = loss(m(x), target)  # here
