"""A linear layer, a draw and a codebook in one, and the same with all logits, for the tests of both."""

import math

import torch
import torch.nn.functional as F

import softdraw
from softdraw import linear_draw

RULES = [
    softdraw.ZGR(),
    softdraw.StraightThrough(),
    softdraw.StraightThrough(0.7),
    softdraw.StraightThroughGumbel(0.6),
    softdraw.StraightThroughGumbel(1.0, backward_tau=torch.tensor([0.5, 2.0, 1.0, 0.3]).view(4, 1)),
]
N, D, K, V = (3, 4), 6, 201, 5


def operands(dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = ((*N, D), (K, D), (K,), (K, V))
    return [torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype) for shape in shapes]


def unfused(x, weight, bias, codebook, rule, mask=None, **keys):
    """The same with all logits, by the other functions of the library."""
    logits = F.linear(x, weight, bias)
    y = softdraw.draw(softdraw.OneHotCategorical(logits, mask), rule, **keys)
    index = softdraw.gumbel_max(logits, mask=mask, **keys)
    law = logits.double() if mask is None else logits.double().masked_fill(~mask, -math.inf)
    log_prob = law.log_softmax(-1).gather(-1, index.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    return y @ codebook, index, log_prob


def fused(*operands, **named):
    return linear_draw(*operands[:4], rule=operands[4], **named)


def gradients(draw, given, rule, use="value log_prob", **named):
    given = [t.detach().clone().requires_grad_() for t in given]
    value, index, log_prob = draw(*given, rule, **named)
    loss = value.sin().sum() * ("value" in use)
    if "log_prob" in use:
        loss = loss + (log_prob * torch.arange(log_prob.numel()).view(log_prob.shape)).sum()
    made = torch.autograd.grad(loss, given, allow_unused=True)
    return (value, index, log_prob), [torch.zeros_like(t) if g is None else g for t, g in zip(given, made, strict=True)]


def assert_same(ours, theirs, within):
    (value, index, log_prob), made = ours
    assert torch.equal(index, theirs[0][1])
    assert torch.equal(value, theirs[0][0])
    torch.testing.assert_close(log_prob.double(), theirs[0][2].double(), rtol=within, atol=within)
    for mine, other in zip(made, theirs[1], strict=True):
        torch.testing.assert_close(mine, other, rtol=within, atol=within)
