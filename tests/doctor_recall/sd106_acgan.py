# SD106: clvrai/ACGAN-PyTorch issue 3: an auxiliary head that ends in nn.Softmax, of two outputs.
import torch
import torch.nn.functional as F
from torch import nn


class _netD(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc_aux = nn.Linear(13 * 13 * 512, 10)
        self.softmax = nn.Softmax(dim=1)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x):
        classes = self.softmax(self.fc_aux(x))
        realfake = self.sigmoid(self.fc_dis(x)).view(-1, 1).squeeze(1)
        return realfake, classes


netD = _netD()
aux_criterion = nn.NLLLoss()


def step(x, y):
    dis_output, aux_output = netD(x)
    return aux_criterion(aux_output, y)  # here
