# SD109: Yangyangii/Curiosity-Driven-A2C losses.py: log(action_prob + 1e-6) in a loss class, the softmax in the caller.
import torch
import torch.nn.functional as F
from torch import nn


class PGLoss(nn.Module):
    def forward(self, action_prob, reward):
        return -torch.mean(torch.log(action_prob + 1e-6) * reward)  # here


def update(actor, obs, reward):
    criterion = PGLoss()
    action_prob = F.softmax(actor(obs), dim=-1)
    return criterion(action_prob, reward)
