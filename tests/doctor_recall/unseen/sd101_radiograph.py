# SD101: Lightning: one method for the batches of training and validation.
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn


class Classifier(pl.LightningModule):
    def forward(self, x):
        return self.net(x)

    def process_batch(self, batch):
        images, labels = batch["image"], batch["label"]
        logits = self.forward(images)
        probs = torch.sigmoid(logits)
        loss = F.binary_cross_entropy(probs, labels)  # here
        return loss

    def training_step(self, batch, index):
        return self.process_batch(batch)
