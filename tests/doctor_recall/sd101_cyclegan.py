# SD101: an old use_sigmoid flag in a discriminator, as in junyanz/pytorch-CycleGAN-and-pix2pix: a list grows by +=.
import torch
import torch.nn.functional as F
from torch import nn


class PixelDiscriminator(nn.Module):
    def __init__(self, input_nc):
        super().__init__()
        net = [nn.Conv2d(input_nc, 64, 1), nn.LeakyReLU(0.2, True)]
        net += [nn.Conv2d(64, 1, 1), nn.Sigmoid()]
        self.net = nn.Sequential(*net)

    def forward(self, input):
        return self.net(input)


class GANLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.loss = nn.BCELoss()
        self.netD = PixelDiscriminator(3)

    def __call__(self, x, target):
        return self.loss(self.netD(x), target)  # here
