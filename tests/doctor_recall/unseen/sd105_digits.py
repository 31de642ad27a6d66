# SD105: a script: a LeNet or a Sequential that ends in a Softmax, by an argument.
import sys

import torch
import torch.nn.functional as F
from torch import nn


class LeNet(nn.Module):
    def forward(self, x):
        x = self.features(x)
        return F.softmax(self.fc(x), dim=1)


if sys.argv[1] == "lenet":
    model_type = "lenet"
    model = LeNet()
else:
    model_type = "simple"
    model = nn.Sequential(
        nn.Linear(784, 544),
        nn.ReLU(),
        nn.Linear(544, 10),
        nn.Softmax(dim=1),
        # nn.LogSoftmax(dim=1),
    )
model.to("cuda")
criterion = nn.CrossEntropyLoss()
for images, labels in loader:
    output = model(images.cuda())
    loss = criterion(output, labels.cuda())  # here
    loss.backward()
