"""A step of ``softdraw train`` beside the same model in stock torch: time and loss, in one process on this machine.

Run: python examples/train_against_stock.py

Both train a categorical autoencoder on scikit-learn's digits, from the same weights, on the same batches, with the same
schedules and Adam; their steps take turns. They differ in the draw (``F.gumbel_softmax``, or straight-through by hand)
and in the losses (torch's, or in torch's operations). Their noise differs, so their losses agree as two seeds do.
"""

import argparse
import copy
import math
import statistics
import time

import torch
import torch.nn.functional as F

from softdraw.recipes.autoencoder.loop import Trainer
from softdraw.recipes.autoencoder.settings import Settings, rule_settings
from softdraw.recipes.runs.ranks import Ranks


def gumbel_softmax(logits, tau):
    """A relaxed draw."""
    return F.gumbel_softmax(logits, tau=tau)


def straight_through(logits, tau):
    """An exact draw, with the gradient of the softmax."""
    p = logits.softmax(-1)
    index = torch.multinomial(p.detach().flatten(0, -2), 1).view(*p.shape[:-1], 1)
    return torch.zeros_like(p).scatter_(-1, index, 1.0) - p.detach() + p


class Stock:
    """The autoencoder's layers, trained as one writes it without softdraw."""

    def __init__(self, trainer, draw):
        s, steps = (
            trainer.settings,
            trainer.settings.epochs * math.ceil(len(trainer.train) / trainer.settings.batch_size),
        )
        self.images, self.draw, self.categories = trainer.train, draw, s.categories
        self.encoder, self.decoder = copy.deepcopy(trainer.model.encoder), copy.deepcopy(trainer.model.decoder)
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=s.learning_rate)
        self.tau, self.kl_weight, self.done = s.tau(steps), s.kl_weight(steps), 0

    def loss(self, x):
        """The mean over the images of reconstruction and weighted KL terms."""
        logits = self.encoder(2 * x - 1).view(len(x), -1, self.categories)
        pixels = self.decoder(self.draw(logits, self.tau(self.done)).flatten(-2))
        error = F.binary_cross_entropy_with_logits(pixels, x, reduction="none").sum(-1)
        log_q = logits.log_softmax(-1)
        kl = (math.log(self.categories) + (log_q.exp() * log_q).sum(-1)).sum(-1)
        return (error + self.kl_weight(self.done) * kl).mean()

    def step(self, ids):
        """One step of the optimizer; returns the loss."""
        loss = self.loss(self.images[ids])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.done += 1
        return loss.detach()


def compare(rule, draw, threads, epochs):
    """Median seconds of a step of each, and the mean loss of each over the last epoch."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    ours = Trainer(Settings(epochs=epochs, **rule_settings(rule)), torch.device("cpu"), Ranks())
    steppers = [Stock(ours, draw), ours]
    times, losses = ([], []), ([], [])
    for epoch in range(epochs):
        for i, ids in enumerate(torch.randperm(len(ours.train)).split(ours.settings.batch_size)):
            for k in (0, 1) if i % 2 else (1, 0):  # each goes first as often
                start = time.perf_counter()
                loss = steppers[k].step(ids)
                times[k].append(time.perf_counter() - start)
                if epoch == epochs - 1:
                    losses[k].append(float(loss) * len(ids))
    return [statistics.median(t) for t in times], [sum(x) / len(ours.train) for x in losses]


PAIRS = (("GumbelSoftmax", gumbel_softmax), ("StraightThrough", straight_through), ("ZGR", straight_through))

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    print(f"torch {torch.__version__}\n")
    print("| softdraw | stock | threads | softdraw, ms | stock, ms | times faster | loss, softdraw | loss, stock |")
    print("|---|---|---|---|---|---|---|---|")
    for rule, draw in PAIRS:
        for threads in options.threads:
            (stock, ours), losses = compare(rule, draw, threads, options.epochs)
            cells = [f"`{rule}`", f"`{draw.__name__}`", threads, f"{ours * 1e3:.2f}", f"{stock * 1e3:.2f}"]
            cells += [f"{stock / ours:.2f}", f"{losses[1]:.2f}", f"{losses[0]:.2f}"]
            print("|", " | ".join(str(cell) for cell in cells), "|", flush=True)
