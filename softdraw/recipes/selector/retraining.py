"""The accuracy of a choice of features: a new network is trained on them alone, the same for every selector."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from softdraw.recipes.selector.data import Splits
from softdraw.recipes.selector.model import Networks
from softdraw.recipes.selector.settings import Settings


def accuracies(splits: Splits, chosen: Tensor, classes: int, settings: Settings, generator: torch.Generator) -> Tensor:
    """The held-out accuracy of each choice, ``(A, R)``.

    The networks of one seed start from the same weights and see the same batches, so that what differs is the choice.

    Args:
        splits: R of them.
        chosen: features, ``(A, R, n)`` bool, for A selectors.
        classes: the number of classes.
        settings: of the run.
        generator: decides weights and batches.
    """
    arms, seeds, features = chosen.shape
    one = Networks(seeds, features, settings.width, classes, generator)
    networks = Networks(arms * seeds, features, settings.width, classes, torch.Generator())
    networks.load_state_dict({name: x.repeat(arms, 1, 1) for name, x in one.state_dict().items()})
    networks = networks.to(splits.x.device)
    masks = chosen.flatten(0, 1).unsqueeze(1).to(splits.x.dtype)
    optimizer = torch.optim.Adam(networks.parameters(), lr=settings.learning_rate, foreach=True)
    rate = settings.rate(settings.retraining * math.ceil(splits.x.shape[1] / settings.batch_size))
    step = 0
    for _ in range(settings.retraining):
        for x, y, _ids in batches(splits, settings.batch_size, generator):
            loss = networks.losses(x.repeat(arms, 1, 1) * masks, y.repeat(arms, 1)).mean(-1).sum()
            optimizer.param_groups[0]["lr"] = settings.learning_rate * rate(step)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    with torch.no_grad():
        errors = networks.errors(splits.valid_x.repeat(arms, 1, 1) * masks, splits.valid_y.repeat(arms, 1))
    return 1 - errors.view(arms, seeds).cpu()


def batches(splits: Splits, size: int, generator: torch.Generator) -> list[tuple[Tensor, Tensor, Tensor]]:
    """One pass in an order of each split's own: rows ``(R, B, n)``, classes and places in the split ``(R, B)``."""
    seeds, count, _ = splits.x.shape
    order = torch.rand(seeds, count, generator=generator).argsort(-1).to(splits.x.device)
    each = torch.arange(seeds, device=order.device).unsqueeze(-1)
    return [(splits.x[each, ids], splits.y[each, ids], ids) for ids in order.split(size, -1)]
