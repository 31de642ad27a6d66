# SD106: the likelihood of a Bayesian network, softmax without a dimension.
import torch
import torch.nn.functional as F
from torch import nn


class Likelihood(nn.Module):
    def forward(self, weights, biases):
        logits = self.kernel.predict(self.x.view([-1, *self.shape]), weights, biases)
        return F.nll_loss(F.softmax(logits), self.y)  # here
