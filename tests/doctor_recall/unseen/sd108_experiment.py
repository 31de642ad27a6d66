# SD108: the criterion is an argument of another call.
import torch
from project import Experiment
from torch.nn import BCEWithLogitsLoss


def run(model, loader, mask):
    pos_weights = torch.tensor([1.7]).cuda()
    experiment = Experiment(module=model, device="cuda", loss_function=BCEWithLogitsLoss(weight=pos_weights))  # here
    experiment.train(loader, epochs=500)
