# SD101: eriklindernoren/PyTorch-GAN gan.py: discriminator.cuda() as a statement, validity in a variable.
import torch
import torch.nn.functional as F
from torch import nn


class Discriminator(nn.Module):
    def __init__(self):
        super(Discriminator, self).__init__()
        self.model = nn.Sequential(
            nn.Linear(512, 256), nn.LeakyReLU(0.2, inplace=True), nn.Linear(256, 1), nn.Sigmoid()
        )

    def forward(self, img):
        img_flat = img.view(img.size(0), -1)
        validity = self.model(img_flat)
        return validity


adversarial_loss = torch.nn.BCELoss()
discriminator = Discriminator()
if cuda:
    discriminator.cuda()
    adversarial_loss.cuda()
for imgs in dataloader:
    g_loss = adversarial_loss(discriminator(imgs), valid)  # here
