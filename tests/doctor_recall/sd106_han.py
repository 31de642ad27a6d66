# SD106: pandeykartikey/Hierarchical-Attention-Network issue 3: softmax in forward, NLLLoss at module level, cuda.
import torch
import torch.nn.functional as F
from torch import nn


class HAN(nn.Module):
    def forward(self, sent):
        sent_pred = self.fc(sent)
        return F.softmax(sent_pred, dim=-1)


han = HAN()
han.cuda()
criterion = nn.NLLLoss().cuda()


def train_data(batch, targets):
    y_pred = han(batch)
    loss = criterion(y_pred.cuda(), targets)  # here
