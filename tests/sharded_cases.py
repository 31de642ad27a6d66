"""What rows whose categories are split over ranks must give as the whole row does: every case runs on both.

``Whole`` and ``Part`` give a case the same functions: those of softdraw on whole rows, and those of
softdraw.distributed on one rank's block of them.
"""

import torch
from leaves import make

import softdraw
from softdraw import distributed, losses

RULES = [
    softdraw.ZGR(),
    softdraw.StraightThrough(0.7),
    softdraw.ReinMax(1.3),
    softdraw.GappedStraightThrough(0.6),
    softdraw.StraightThroughGumbel(0.5),
    softdraw.GumbelSoftmax(0.5),
]
BROKEN, EMPTY, N, K = 4, 3, 6, 37


def cuts(k, world):
    """Uneven blocks that begin at no multiple of four; of four ranks one has no category."""
    return {1: [0, k], 2: [0, k // 3 | 1, k], 3: [0, 5, k // 2 | 1, k], 4: [0, k // 4 | 1, k // 4 | 1, k - 6 | 1, k]}[
        world
    ]


class Whole:
    """Whole rows on one rank."""

    def part(self, x):
        return x

    def __getattr__(self, name):
        found = getattr(softdraw, name, None) or getattr(losses, name)
        if name == "draw":
            return lambda x, rule, mask=None, **o: softdraw.draw(softdraw.OneHotCategorical(x, mask), rule, **o)
        if name in ("categorical_nll", "kl_to_prior"):
            return found
        return lambda x, *a, **o: found(x, *a, **o)


class Part(Whole):
    """One rank's block."""

    def __init__(self, rank, world, k):
        self.first, self.last = cuts(k, world)[rank : rank + 2]

    def part(self, x):
        return x[..., self.first : self.last]

    def __getattr__(self, name):
        found = getattr(distributed, name)
        if name in ("categorical_nll", "kl_to_prior"):
            return lambda x, y, **o: found(x, y, self.first, **o)
        if name == "gumbel_softmax":
            return lambda x, tau, hard, **o: found(x, self.first, None, tau, hard, **o)
        if name == "draw":
            return lambda x, rule, **o: found(x, self.first, None, rule, **o)
        return lambda x, *a, **o: found(x, self.first, *a, **o)


def differentiated(how, x, call, *more):
    """The value of ``call(leaf)``, the gradient of a weighted sum for the leaf, and for more leaves."""
    leaf = how.part(x).clone().requires_grad_()
    y = call(leaf)
    weight = make(x.shape, seed=7).to(y.dtype)
    (y * (how.part(weight) if y.shape == leaf.shape else 1)).sum().backward()
    return [y.detach(), leaf.grad, *(m.grad for m in more)]


def cases(how):
    """{name: [values]}: a value with the columns of the logits is a block."""
    x, mask, ids = make((N, K)) * 3, make((N, K), seed=2) > -0.6, torch.arange(N) * 7 + 2**33
    mask[EMPTY], mask[:, 11], mask[BROKEN, 5], x[BROKEN, 5] = False, True, True, torch.nan
    mask[EMPTY], mask[2, 0], x[2, 0] = False, True, 12  # which draws the first category
    keys = {"seed": 3, "mask": how.part(mask), "rows": ids}
    yield "index", [how.gumbel_max(how.part(x), sample_shape=(2, 2), **keys)]
    yield "seeds", [how.gumbel_max(how.part(x), seed=softdraw.fold_in(1, ids))]
    for hard in (False, True):
        taus = torch.tensor(0.6), make((N, 1), seed=5).exp()
        for tau in (t.requires_grad_() for t in taus):
            good = torch.arange(N) != BROKEN  # a NaN row makes the gradient of one tau for all NaN
            sound = {"seed": 3, "mask": how.part(mask[good]), "rows": ids[good]}
            t = tau[good] if tau.dim() else tau
            yield (
                f"tau {tau.dim()} {hard}",
                differentiated(
                    how, x[good], lambda leaf, t=t, s=sound, h=hard: how.gumbel_softmax(leaf, t, h, **s), tau
                ),
            )
        yield f"soft {hard}", differentiated(how, x, lambda leaf, h=hard: how.gumbel_softmax(leaf, 0.6, h, **keys))
    for rule in RULES:
        yield f"{rule}", differentiated(how, x, lambda leaf, r=rule: how.draw(leaf, r, **keys))
    yield from laws(how, x[[0, 1, 2, 5]], mask[[0, 1, 2, 5]])


def laws(how, x, mask):
    """What the law says, of ordinary rows; the mask as -inf where a function has none for categories."""
    for t in (1.0, 0.5, 0.0, torch.tensor([0.5, 1.0, 2.0, 0.1])):
        found = []

        def both(leaf, t=t, found=found):
            d = how.draw_index(leaf, temperature=t, mask=how.part(mask), seed=3, sample_shape=(2,))
            found.append(d.index)
            return 2 * d.log_prob - d.entropy

        yield f"temperature {t}", [*differentiated(how, x, both), *found]
    x, t = x.masked_fill(~mask, -torch.inf), make(x.shape, seed=8).softmax(-1).masked_fill(~mask, 0)
    t, at = t / t.sum(-1, keepdim=True), x.argmax(-1)
    keep, weight = torch.tensor([True, True, False, True]), torch.tensor([1.0, 2.0, 3.0, 0.5])
    for reduction in ("mean", "sum", "none"):
        counted = {"mask": keep, "weight": weight, "reduction": reduction}
        yield f"nll {reduction}", differentiated(how, x, lambda leaf, o=counted: how.categorical_nll(leaf, at, **o))
    yield "nll of laws", differentiated(how, x, lambda leaf: how.categorical_nll(leaf, how.part(t)))
    yield "uniform", differentiated(how, x, lambda leaf: how.kl_to_uniform(leaf, weight=weight))
    prior = how.part(make((K,), seed=9)).clone().requires_grad_()
    yield "prior", differentiated(how, x, lambda leaf: how.kl_to_prior(leaf, prior), prior)
