# SD102: a decorator around training_step.
import torch
import torch.nn.functional as F
from torch import nn


class Trainer:
    @torch.autocast("cuda")
    def step(self, x, y):
        p = self.model(x).sigmoid()
        return F.binary_cross_entropy(p, y)  # here
