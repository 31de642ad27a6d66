# SD101: a loss is summed in a loop; the probabilities are counted afterwards.
import torch
import torch.nn.functional as F
from torch import nn


class Decoder(nn.Module):
    def loss(self, states, edges):
        loss_edge, right = 0, 0
        for i in range(len(edges)):
            pairs = torch.zeros(7, 2 * self.dim).to(self.device)
            probs = torch.sigmoid(self.edge_fc(pairs))
            loss_edge += F.binary_cross_entropy(probs, edges[i].to(self.device), reduction="sum")  # here
            for k, p in enumerate(probs):
                right += int(p > 0.5 and edges[i][k] == 1)
        return loss_edge, right
