# SD101: pytorch/examples dcgan: Sequential in self.main, a branch for several devices, netD = D().to(device).
import torch
import torch.nn.functional as F
from torch import nn


class Discriminator(nn.Module):
    def __init__(self, ngpu):
        super().__init__()
        self.ngpu = ngpu
        self.main = nn.Sequential(nn.Conv2d(64, 1, 4, 1, 0, bias=False), nn.Sigmoid())

    def forward(self, input):
        if input.is_cuda and self.ngpu > 1:
            output = nn.parallel.data_parallel(self.main, input, range(self.ngpu))
        else:
            output = self.main(input)
        return output.view(-1, 1).squeeze(1)


netD = Discriminator(1).to(device)
netD.apply(weights_init)
criterion = nn.BCELoss()
for data in loader:
    output = netD(data)
    errD_real = criterion(output, label)  # here
