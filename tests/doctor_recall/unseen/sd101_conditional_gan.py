# SD101: a discriminator unpacks a pair; disc = disc.to(device) on a line of its own.
import torch
import torch.nn.functional as F
from torch import nn


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.label_embed = nn.Sequential(nn.Embedding(9, 16), nn.Linear(16, 4096))
        self.model = nn.Sequential(
            nn.Conv2d(4, 64, 5, 2),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Flatten(),
            nn.Linear(512, 1),
            nn.Sigmoid(),
        )

    def forward(self, input):
        image, label = input
        planes = self.label_embed(label).view(-1, 1, 64, 64)
        return self.model(torch.cat((image, planes), dim=1))


disc = Discriminator()
disc = disc.to("cuda")
loss_fn = nn.BCELoss()

for epoch in range(5):
    for labels, image in loader:
        image, labels = image.to("cuda"), labels.to("cuda")
        real = disc((image, labels))
        real_loss = loss_fn(real, torch.ones_like(real))  # here
        real_loss.backward()
