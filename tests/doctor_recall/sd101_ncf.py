# SD101: neural collaborative filtering: logistic = nn.Sigmoid() in self, the criterion in an engine's base class.
import torch
import torch.nn.functional as F
from torch import nn


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.affine_output = nn.Linear(8, 1)
        self.logistic = nn.Sigmoid()

    def forward(self, user, item):
        logits = self.affine_output(torch.cat([user, item], dim=-1))
        rating = self.logistic(logits)
        return rating


class Engine:
    def __init__(self, config):
        self.crit = torch.nn.BCELoss()


class MLPEngine(Engine):
    def __init__(self, config):
        self.model = MLP(config)
        super().__init__(config)

    def train_single_batch(self, users, items, ratings):
        ratings_pred = self.model(users, items)
        return self.crit(ratings_pred.view(-1), ratings)  # here
