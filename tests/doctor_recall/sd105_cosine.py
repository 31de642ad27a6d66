# SD105: nishnik/Deep-Semantic-Similarity-Model-PyTorch issue 2: similarities through a softmax, legacy Variable.
import torch
import torch.nn.functional as F
from torch import nn


class CDSSM(nn.Module):
    def __init__(self):
        super().__init__()
        self.learn_gamma = nn.Conv1d(1, 1, 1)

    def forward(self, q, docs):
        dots = [torch.dot(q, d) for d in docs]
        with_gamma = self.learn_gamma(torch.stack(dots))
        prob = F.softmax(with_gamma)
        return prob


model = CDSSM()
criterion = torch.nn.CrossEntropyLoss()
for q, docs, y in data:
    y_pred = model(q, docs)
    loss = criterion(y_pred.resize(1, 5), y)  # here
