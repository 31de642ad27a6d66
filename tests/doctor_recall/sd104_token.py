# SD104: cvg/glue-factory issue 89: Sequential(Linear, Sigmoid) and a loss_fn attribute.
import torch
import torch.nn.functional as F
from torch import nn


class TokenConfidence(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.token = nn.Sequential(nn.Linear(dim, 1), nn.Sigmoid())
        self.loss_fn = nn.BCEWithLogitsLoss(reduction="none")

    def loss(self, desc, correct):
        logit = self.token(desc.detach()).squeeze(-1)
        return self.loss_fn(logit, correct.float()).mean(-1)  # here
