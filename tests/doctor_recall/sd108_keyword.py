# SD108: MisaOgura/MRNet issue 7: weight=pos_weight by keyword.
import torch
import torch.nn.functional as F
from torch import nn


def loss(pos_weight):
    return nn.BCEWithLogitsLoss(weight=pos_weight)  # here
