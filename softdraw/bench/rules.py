"""``rules``: a draw with the gradient of each rule, forward and backward.

A line is ``draw(logits, rule)``, and for bits ``draw(Bernoulli(logits), rule)``, which has no shorter form. It is
compared with

    by hand   the same rule in torch's operations, as its authors and users write it
    eager     torch.nn.functional.gumbel_softmax, where that is the rule
    gumbel    our own gumbel_softmax at the same logits
    law       draw(OneHotCategorical(logits), rule), the law built in the loop

Of the first two the sample is drawn by ``torch.multinomial`` or ``torch.bernoulli``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from softdraw.bench.draws import TAU
from softdraw.bench.line import Gradient, Line, Ways
from softdraw.functional import gumbel_softmax
from softdraw.laws import Bernoulli, OneHotCategorical
from softdraw.rules import (
    ZGR,
    GappedStraightThrough,
    GumbelRao,
    GumbelSoftmax,
    ReinMax,
    ReinMaxRao,
    StraightThrough,
    StraightThroughGumbel,
)
from softdraw.rules.pathwise import Pathwise
from softdraw.verbs import draw

_MOST = 2**24  # noise that is held at once by hand: every operation on it makes another 64 MB and more
Draw = Callable[[Tensor], Tensor]


def straight_through(x: Tensor) -> Tensor:
    """Bengio, Léonard and Courville (2013)."""
    p = x.softmax(-1)
    d = _one_hot(p)
    return d - p.detach() + p


def zgr(x: Tensor) -> Tensor:
    """Shekhovtsov (2023), as in the code that goes with the paper: half straight-through, half a centred score."""
    p = x.softmax(-1)
    d = _one_hot(p)
    log_p = (p * d).sum(-1, keepdim=True).log()
    surrogate = (p + (d - p.detach()) * log_p) / 2
    return d - surrogate.detach() + surrogate


def reinmax(x: Tensor, tau: float) -> Tensor:
    """Liu et al. (2023), algorithm 2."""
    p = x.softmax(-1)
    d = _one_hot(p)
    middle = (d + (x / tau).softmax(-1)) / 2
    middle = ((middle.log() - x).detach() + x).softmax(-1)
    surrogate = 2 * middle - p / 2
    return d - surrogate.detach() + surrogate


def gapped_straight_through(x: Tensor, tau: float, gap: float) -> Tensor:
    """Fan et al. (2022), section 4: logits are shifted by as much as makes the sample win by the gap."""
    fixed = x.detach()
    d = _one_hot(fixed.softmax(-1))
    top = fixed.amax(-1, keepdim=True)
    up = (top - (fixed * d).sum(-1, keepdim=True)) * d
    down = (fixed - top + gap).relu() * (1 - d)
    y = ((x + up - down) / tau).softmax(-1)
    return d - y.detach() + y


def gumbel_rao(x: Tensor, tau: float, samples: int) -> Tensor:
    """Paulus, Maddison and Krause (2021), algorithm 1: all samples at once, as public code has it."""
    d = _one_hot(x.detach().softmax(-1))
    shift = _conditional(x.detach(), d, samples) - x.detach()
    y = ((x + shift) / tau).softmax(-1).mean(0)
    return d - y.detach() + y


def reinmax_rao(x: Tensor, tau: float, samples: int) -> Tensor:
    """arXiv 2603.08257: the middle term of ReinMax by Gumbel-Rao at theta = log((p + d) / 2)."""
    p = x.softmax(-1)
    d = _one_hot(p)
    shift = _conditional(((p + d) / 2).log().detach(), d, samples) - x.detach()
    surrogate = 2 * ((x + shift) / tau).softmax(-1).mean(0) - p / 2
    return d - surrogate.detach() + surrogate


def bits_straight_through(x: Tensor) -> Tensor:
    """Straight-through for bits."""
    p = x.sigmoid()
    b = _bits(p.detach())
    return b - p.detach() + p


def bits_zgr(x: Tensor) -> Tensor:
    """ZGR for bits, in closed form: half the probability of the other value."""
    p = x.detach().sigmoid()
    b = _bits(p)
    half = (b * (1 - p) + (1 - b) * p) / 2
    return b + half * (x - x.detach())


def _one_hot(p: Tensor) -> Tensor:
    return torch.zeros_like(p).scatter_(-1, torch.multinomial(p.detach(), 1), 1.0)


def _bits(p: Tensor) -> Tensor:
    return torch.bernoulli(p)


def _conditional(theta: Tensor, d: Tensor, samples: int) -> Tensor:
    """theta + G for noise G that has the maximum at ``d``, ``(samples, *theta.shape)``."""
    e = torch.empty(samples, *theta.shape, dtype=theta.dtype, device=theta.device).exponential_()
    e_top, z = (d * e).sum(-1, keepdim=True), theta.exp().sum(-1, keepdim=True)
    return d * (z.log() - e_top.log()) - (1 - d) * (e / theta.exp() + e_top / z).log()


def _ours(x: Tensor, rule: Pathwise) -> Tensor:
    return draw(x, rule)


def _of_law(x: Tensor, rule: Pathwise) -> Tensor:
    return draw(OneHotCategorical(x), rule)


def _of_bits(x: Tensor, rule: Pathwise) -> Tensor:
    return draw(Bernoulli(x), rule)


def _line(rule: Pathwise, peers: dict[str, Draw], hard: bool = True, samples: int = 1) -> Line:
    def ways(x: Tensor) -> Ways:
        functions = {
            "softdraw": partial(_ours, rule=rule),
            **({} if x.numel() * samples > _MOST and samples > 1 else peers),
            "gumbel": partial(gumbel_softmax, tau=TAU, hard=hard),
            "law": partial(_of_law, rule=rule),
        }
        return {name: Gradient(f, x) for name, f in functions.items()}

    return Line(ways, dense=5, samples=samples)


def _bit_line(rule: Pathwise, by_hand: Draw) -> Line:
    def ways(x: Tensor) -> Ways:
        return {"softdraw": Gradient(partial(_of_bits, rule=rule), x), "by hand": Gradient(by_hand, x)}

    return Line(ways, dense=5)


def _by_hand(f: Callable[..., Tensor], **settings: float) -> dict[str, Draw]:
    return {"by hand": partial(f, **settings)}


def _eager(hard: bool) -> dict[str, Draw]:
    return {"eager": partial(F.gumbel_softmax, tau=TAU, hard=hard)}


LINES = {
    "StraightThrough": _line(StraightThrough(), _by_hand(straight_through)),
    "ZGR": _line(ZGR(), _by_hand(zgr)),
    "ReinMax": _line(ReinMax(1.1), _by_hand(reinmax, tau=1.1)),
    "GappedStraightThrough": _line(GappedStraightThrough(TAU), _by_hand(gapped_straight_through, tau=TAU, gap=1.0)),
    "GumbelSoftmax": _line(GumbelSoftmax(TAU), _eager(hard=False), hard=False),
    "StraightThroughGumbel": _line(StraightThroughGumbel(TAU), _eager(hard=True)),
    "GumbelRao": _line(GumbelRao(0.5, 10), _by_hand(gumbel_rao, tau=0.5, samples=10), samples=10),
    "ReinMaxRao": _line(ReinMaxRao(1.0, 10), _by_hand(reinmax_rao, tau=1.0, samples=10), samples=10),
    "bits:StraightThrough": _bit_line(StraightThrough(), bits_straight_through),
    "bits:ZGR": _bit_line(ZGR(), bits_zgr),
}
