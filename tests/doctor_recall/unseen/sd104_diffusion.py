# SD104: forward ends in a sigmoid; the loss calls the same object through self.model of another class.
import torch
import torch.nn.functional as F
from torch import nn


class Denoiser(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, t):
        out = self.net(x, t)
        return F.sigmoid(out)


class Diffusion(nn.Module):
    def __init__(self, net, steps):
        super().__init__()
        self.model = Denoiser(net)
        self.steps = steps

    def loss(self, x, labels):
        t = torch.randint(0, self.steps, (len(x),)).long()
        probs = self.model(x, t)
        loss = F.binary_cross_entropy_with_logits(probs.float(), labels.float())  # here
        return loss, ((probs >= 0.5) == labels).sum()
