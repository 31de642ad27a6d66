"""Logits, draws and their gradients for the tests of what every public call promises."""

from __future__ import annotations

import torch

import softdraw

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
FORMS = [False, True]  # hard


def make(shape, dtype=torch.float32, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def draw_and_grad(logits, *args, **kwargs):
    """A draw, and the gradient of a random linear function of it."""
    leaf = logits.detach().clone().requires_grad_()
    y = softdraw.gumbel_softmax(leaf, *args, **kwargs)
    (y * make(y.shape, y.dtype, seed=99)).sum().backward()
    return y.detach(), leaf.grad


def one_hot_rows(y):
    return bool(((y == 0) | (y == 1)).all()) and torch.equal(y.sum(-1), torch.ones_like(y[..., 0]))
