"""The Triton passes over bits equal the formulas of ``bit_cases``, in value and gradient; at infinite logits too.

In Triton's interpreter (test_triton_process.py runs it), or on a GPU, whose logarithms and exponentials are
approximate: there four times as much is allowed.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import bit_cases
import pytest
import torch
from triton_here import DEVICE, INTERPRETED, body, marks

import softdraw
from softdraw import kernels
from softdraw.kernels.bits_cpu import Bits

pytestmark = marks
MOST = 4 if INTERPRETED else 16
SHAPES = [(0,), (1,), (3, 21), (2, 100)]
each_dtype = pytest.mark.parametrize("dtype", bit_cases.DTYPES)


def _moved(x: Any, device: str) -> Any:
    if isinstance(x, Bits):
        return Bits(*(_moved(part, device) for part in x))
    if isinstance(x, tuple):
        return tuple(_moved(part, device) for part in x)
    return x.to(device) if isinstance(x, torch.Tensor) else x


def _there(name: str) -> Any:
    return lambda *given: _moved(getattr(body.over_bits, name)(*(_moved(x, DEVICE) for x in given)), "cpu")


_NAMES = ("nll", "entropy", "variance", "kl", "share")
PASSES = SimpleNamespace(**{name + way: _there(name + way) for name in _NAMES for way in ("", "_backward")})


@pytest.fixture
def short(monkeypatch):
    """Programs of so few bits that some tens are several, and rows wider than a program is."""
    monkeypatch.setattr(body.over_bits, "_TOGETHER", 32)
    monkeypatch.setattr(body.layout, "_WHOLE", 32)
    monkeypatch.setattr(body.layout, "_SPLIT", 16)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@each_dtype
@pytest.mark.usefixtures("short")
def test_nll(dtype, shape, masked):
    for reduction in range(3):
        bit_cases.check_nll(PASSES, shape, dtype, masked, reduction, MOST)


@pytest.mark.parametrize("shape", [*SHAPES, (2, 1000)])
@each_dtype
def test_entropy_variance_and_divergence(dtype, shape):
    bit_cases.check_functions(PASSES, shape, dtype, MOST)


@pytest.mark.parametrize(
    ("shape", "masked", "reduction"),
    [((20, 10), True, 2), ((20, 8), False, 1), ((9, 33), True, 0), ((2, 40), False, 2), ((1, 100), True, 1)],
)
@each_dtype
@pytest.mark.usefixtures("short")
def test_share(dtype, shape, masked, reduction):
    bit_cases.check_share(PASSES, shape, dtype, masked, reduction, MOST)


@each_dtype
def test_limits_at_infinity_and_nan(dtype):
    bit_cases.check_limits(PASSES, dtype)


def test_a_row_without_weight_has_no_loss():
    x, weight = torch.randn(3, 6, generator=torch.Generator().manual_seed(0)), torch.ones(3, 6)
    weight[1] = 0
    for reduction, divisor in ((0, 1), (1, 1), (2, 2)):
        bits = Bits(x, weight=weight, number=0.3, reduction=reduction, rows=3)
        away = (x.double().sigmoid().mean(-1) - 0.3).square()
        away[1] = 0
        out, saved = PASSES.share(bits)
        want = away.sum() / divisor if reduction else away
        torch.testing.assert_close(out.double(), want, rtol=1e-5, atol=1e-7)
        assert not PASSES.share_backward(bits, torch.ones_like(out), saved)[1].any()
    bits = Bits(x, torch.ones(3, 6), torch.zeros(3, 6), reduction=2)
    out, saved, _ = PASSES.nll(bits)
    assert float(out) == 0
    assert not PASSES.nll_backward(bits, out, saved).any()


def _losses(x, target, weight, positive):
    """What users call, and what each says of these logits."""
    keep, law = target > 0.2, softdraw.Bernoulli(x)
    yield softdraw.losses.bernoulli_nll(x, target, positive, mask=keep, weight=weight)
    yield softdraw.losses.bernoulli_nll(x, target, 2.5, reduction="sum")
    yield softdraw.losses.bernoulli_nll(x, target, reduction="none").sum()
    yield softdraw.losses.keep_ratio(x, 0.3, dim=0, mask=keep, weight=weight)
    yield softdraw.losses.keep_ratio(x, 0.3)
    yield law.log_prob((target > 0.5).to(x.dtype)).sum()
    yield law.entropy().sum()
    yield law.variance.sum()
    yield torch.distributions.kl_divergence(law, softdraw.Bernoulli(weight)).sum()


def test_laws_and_losses_take_the_passes(monkeypatch):
    """Their values and gradients, to the second order, are those of the formulas in float64, without the passes."""
    g = torch.Generator().manual_seed(3)
    given = [torch.randn(6, 5, generator=g), torch.rand(6, 5, generator=g), torch.rand(6, 5, generator=g)]
    given.append(torch.rand(5, generator=g))

    def results(device, dtype):
        x, *rest = (t.to(device, dtype) for t in given)
        made = []
        for number in range(len(list(_losses(x, *rest)))):
            leaf = x.clone().requires_grad_()
            loss = list(_losses(leaf, *rest))[number]
            (dx,) = torch.autograd.grad(loss, leaf, retain_graph=True)
            (same,) = torch.autograd.grad(loss, leaf, create_graph=True)
            made += [loss.detach(), dx, same.detach(), torch.autograd.grad(same.square().sum(), leaf)[0]]
        return [t.double().cpu() for t in made]

    asked = []
    monkeypatch.setattr(kernels, "body_for", lambda x: kernels.reference)
    monkeypatch.setattr(kernels, "body", lambda *_: kernels.reference)
    want = results("cpu", torch.float64)
    monkeypatch.setattr(kernels, "body_for", lambda x: asked.append(x) or body)
    for mine, theirs in zip(results(DEVICE, torch.float32), want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    assert asked
