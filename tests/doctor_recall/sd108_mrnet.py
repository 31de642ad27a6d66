# SD108: a positional pos_weight in a list of criteria, as MisaOgura/MRNet issue 7 proposes with weight=.
import torch
import torch.nn.functional as F
from torch import nn


def criteria(pos_weights):
    return [nn.BCEWithLogitsLoss(pos_weight) for pos_weight in pos_weights]  # here
