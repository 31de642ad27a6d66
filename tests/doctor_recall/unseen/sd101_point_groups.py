# SD101: a function makes the criterion on a device, and the functions within it use it.
import torch
import torch.nn.functional as F
from torch import nn


def model_functions(cfg):
    semantic_criterion = nn.CrossEntropyLoss(ignore_index=cfg.ignore).cuda()
    score_criterion = nn.BCELoss(reduction="none").cuda()

    def loss_fn(inputs, epoch):
        found = {}
        if epoch > cfg.prepare:
            scores, offsets = inputs["proposal_scores"]
            score_loss = score_criterion(torch.sigmoid(scores.view(-1)), inputs["ious"])  # here
            found["score"] = score_loss.mean()
        return found

    def train_step(batch, model, epoch):
        return loss_fn(model(batch), epoch)

    return train_step
