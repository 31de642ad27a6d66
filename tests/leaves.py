"""Logits to draw from, and the gradient that a weighted sum of the draw leaves at them."""

import torch


def make(shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def grads(function, logits, weight):
    leaf = logits.clone().requires_grad_()
    y = function(leaf)
    (y * weight).sum().backward()
    return y.detach(), leaf.grad
