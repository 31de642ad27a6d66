"""Text from a trained model: characters appear where it was masked, a few at a time, in any order.

    step s:   x_i ~ p(x_i | what is written)                       softdraw.draw_index, for every masked place
              which places to write: k of them, by how sure        softdraw.gumbel_topk, Plackett and Luce

All noise is keyed by (text, step, place). So a text is the same alone, among others, and on any rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import softdraw
from softdraw.errors import InputError
from softdraw.recipes.diffusion.model import Transformer


@dataclass(frozen=True)
class Writing:
    """How texts are written.

    Args:
        texts: how many.
        steps: in which a text is written; None is one for each character.
        temperature: of the characters. 1 is the model's own law, 0 its most likely character.
        order: temperature of the choice of places. At 0 the surest characters are written first, which here are
            blanks: texts of this model are then empty. At inf every order is equally likely, and then, with a step for
            each character at temperature 1, texts have exactly the law that the bound is of.
    """

    texts: int = 4
    steps: int | None = None
    temperature: float = 0.8
    order: float = 4.0

    def __post_init__(self) -> None:
        if not 0 <= self.texts < 2**31:
            raise InputError(f"`texts` must be from 0 to 2**31 - 1, got {self.texts}")
        if self.steps is not None and self.steps < 1:
            raise InputError(f"`steps` must be at least 1, got {self.steps}")
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"`temperature` must be at least 0 and finite, got {self.temperature:g}")
        if not self.order >= 0:
            raise InputError(f"`order` must be at least 0, got {self.order:g}")


@torch.no_grad()
def write(model: Transformer, length: int, ids: Tensor, seed: int, how: Writing) -> Iterator[Tensor]:
    """The texts ``ids``, int64 ``(B, length)``, as they are after each step; the first time all is masked.

    The model sees one text at a time. A matrix product may round differently when it has more rows, and in one of a
    million draws the two best scores are so near to each other that this decides.
    """
    steps = min(how.steps or length, length)
    text = torch.full((len(ids), length), model.mask, device=ids.device)
    seeds = softdraw.fold_in(seed, "writing", ids)
    yield text
    for step in range(steps):
        hidden, now = text == model.mask, softdraw.fold_in(seeds, step)
        logits = torch.cat([model(row[None]) for row in text])
        drawn = softdraw.draw_index(logits, temperature=how.temperature, seed=softdraw.fold_in(now, "characters"))
        places = (step + 1) * length // steps - step * length // steps
        sure = drawn.log_prob if math.isfinite(how.order) else torch.zeros_like(drawn.log_prob)
        order = how.order if math.isfinite(how.order) else 1.0
        chosen = softdraw.gumbel_topk(
            sure, places, temperature=order, mask=hidden, seed=softdraw.fold_in(now, "places")
        )
        text = text.scatter(1, chosen, drawn.index.gather(1, chosen))
        yield text
