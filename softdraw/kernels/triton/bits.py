"""Bits in Triton, one logit each: draws, and the gradients of the rules. csrc/bit_draws.h has the formulas.

Bits have no rows: a program takes the next N of them, (1, 1, N), whatever their batch. Operands are contiguous.
"""

# What is constant has capitals, and Triton reads `if` and `else` by its own rules:
# ruff: noqa: N803, RET505
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from softdraw import noise
from softdraw.arguments import Draw, KernelRule, compute_dtype
from softdraw.kernels import reference
from softdraw.kernels.triton import launching
from softdraw.kernels.triton.layout import Tile
from softdraw.kernels.triton.philox import LN_2, exponential_of, gumbel_of, log2, philox
from softdraw.kernels.triton.tiles import INF, LOG2_E

_MOST = tl.constexpr(60 * 0.6931471805599453)
_BOUND = ["draws", "bits", "tau", "gap", "blocks"]
_TOGETHER, _WARPS = 512, 4  # bits of a program: each needs a Philox call of its own


def draw(given: Draw, samples: int | None) -> Tensor:
    """Bits, 1 with probability sigmoid(theta), ``(samples, *batch)`` or ``batch``."""
    theta = given.logits
    out = torch.empty(
        theta.shape if samples is None else (samples, *theta.shape), dtype=theta.dtype, device=theta.device
    )
    if out.numel():
        _launch(drawn, _operands(given, out))
    return out


def backward(given: Draw, grad: Tensor, sample: Tensor, rule: KernelRule, is_given: bool) -> Tensor:
    """The gradient of a rule for theta, of the shape of ``grad``."""
    out = torch.empty(grad.shape, dtype=grad.dtype, device=grad.device)
    if not out.numel():
        return out
    tau, reinmax = given.tau, rule.name == "reinmax_rao"
    if isinstance(tau, Tensor):
        tau = reference.checked(tau, compute_dtype(given.logits.dtype))
        tau = tau.reshape(()) if tau.numel() == 1 else _flat(tau, given.logits.shape)
        named = {"taus": tau, "tau": 1.0, "EACH_TAU": tau.dim() > 0}
    else:
        named = launching.number("tau", tau, given.logits) | {"EACH_TAU": False}
    named |= launching.number("gap", rule.gap, given.logits) | _operands(given, out)
    named |= {"grad": _flat(grad, grad.shape), "sample": _flat(sample, grad.shape), "blocks": rule.draws}
    seed, shape = given.seed, given.logits.shape
    more = None if seed is None or not rule.noisy else noise.conditional(seed)
    named["mores"] = _flat(more, shape) if more is not None and more.numel() > 1 else more
    own = rule.noisy and not (reinmax or is_given)
    _launch(gradient, named | {"RULE": rule.name, "REINMAX": reinmax, "NOISY": rule.noisy, "OWN": own})
    return out


def _operands(given: Draw, out: Tensor) -> dict[str, Any]:
    """What bits are made from, as kernels name it."""
    theta, _, seed, ids, mask, _ = given
    shape = theta.shape
    each_seed = seed is not None and seed.numel() > 1
    return {
        "out": out,
        "theta": _flat(theta, shape),
        "mask": None if mask is None else _flat(mask, shape).view(torch.uint8),
        "seeds": _flat(seed, shape) if seed is not None and each_seed else seed,
        "ids": None if ids is None else _flat(ids, shape),
        "draws": out.numel(),
        "bits": theta.numel(),
        "T": launching.TYPES[compute_dtype(theta.dtype)],
        "EACH_SEED": each_seed,
        "ONCE": out.numel() == theta.numel(),
    }


def _flat(x: Tensor, shape: torch.Size) -> Tensor:
    return x.expand(shape).resolve_neg().contiguous()


def _launch(kernel: Any, named: dict[str, Any]) -> None:
    cut = Tile(1, _TOGETHER, 1, -(-named["draws"] // _TOGETHER), _WARPS)
    launching.launch(kernel, cut, named | {"N": _TOGETHER})


@triton.jit
def _place(draws, bits, ONCE: tl.constexpr, N: tl.constexpr):
    """The numbers of a program's draws, which of them there are, their bits and their streams."""
    number = tl.program_id(0).to(tl.int64) * N + tl.arange(0, N)[None, None, :]
    if ONCE:
        return number, number < draws, number, tl.zeros((1, 1, 1), tl.uint32)
    else:
        return number, number < draws, number % bits, (number // bits).to(tl.uint32)


@triton.jit
def _theta(theta, mask, bit, kept, T: tl.constexpr):
    """Logits, -inf where 1 is forbidden."""
    x = tl.load(theta + bit, kept, 0).to(T)
    return x if mask is None else tl.where(tl.load(mask + bit, kept, 0) != 0, x, -INF)


@triton.jit
def _key(seeds, ids, bit, kept, EACH_SEED: tl.constexpr):
    """The seed of every bit and the two halves of its id."""
    id = bit if ids is None else tl.load(ids + bit, kept, 0)
    seed = tl.load(seeds + bit, kept, 0) if EACH_SEED else tl.load(seeds)
    return seed, id.to(tl.uint32), (id >> 32).to(tl.uint32)


@triton.jit
def _exponentials(w0, w1, column, seed, low, high, stream, T: tl.constexpr):
    """The exponential noise of the two categories of a bit, whose columns begin here."""
    at = (column + tl.zeros((1, 1, 1), tl.int64)).to(tl.uint32)
    return exponential_of(w0, at, seed, low, high, stream, T), exponential_of(w1, at + 1, seed, low, high, stream, T)


@triton.jit
def _words(counter, seed, low, high, stream):
    return philox(seed, (counter + tl.zeros((1, 1, 1), tl.int64)).to(tl.uint32), low, high, stream)


@triton.jit
def _ahead(x, seed, low, high, stream, T: tl.constexpr):
    """The score of 1 less that of 0."""
    w0, w1, _w2, _w3 = _words(0, seed, low, high, stream)
    e0, e1 = _exponentials(w0, w1, 0, seed, low, high, stream, T)
    return (x + gumbel_of(e1)) - gumbel_of(e0)


@triton.jit(do_not_specialize=_BOUND[:2])
def drawn(
    out, theta, mask, seeds, ids, draws, bits,
    N: tl.constexpr, T: tl.constexpr, EACH_SEED: tl.constexpr, ONCE: tl.constexpr,
):  # fmt: skip
    """b = [theta + G_1 > G_0], NaN where theta is."""
    number, kept, bit, stream = _place(draws, bits, ONCE, N)
    x = _theta(theta, mask, bit, kept, T)
    seed, low, high = _key(seeds, ids, bit, kept, EACH_SEED)
    b = tl.where(_ahead(x, seed, low, high, stream, T) > 0, 1.0, 0.0)
    tl.store(out + number, tl.where(x == x, b, float("nan")).to(out.dtype.element_ty), kept)


@triton.jit
def _decay(x):
    """exp(-|x|), of which sigmoid(x) and its slope are made."""
    return tl.exp2(tl.where(x < 0, x, -x) * LOG2_E)


@triton.jit
def _slope_of(e):
    return e / ((1 + e) * (1 + e))


@triton.jit
def _sigmoid(x, e):
    return tl.where(x < 0, e, 1) / (1 + e)


@triton.jit
def _closed(x, one, tau, gap, RULE: tl.constexpr):
    """What the gradient is multiplied with, by a rule without noise."""
    if RULE == "zgr":
        e = _decay(x)
        return 0.5 * tl.where(one, _sigmoid(-x, e), _sigmoid(x, e))
    elif RULE == "reinmax":
        e = _decay(x / tau)
        q, not_q = _sigmoid(x, e), _sigmoid(-x, e)
        middle = tl.where(one, (q + 1) * not_q, q * (not_q + 1))  # 4 m (1 - m), m = (q + b) / 2
        return 0.5 * (middle - _slope_of(_decay(x)))
    elif RULE == "gapped":
        top = tl.maximum(x, 0)
        d = tl.where(one, tl.maximum(top, gap), tl.minimum(x - top, -gap))
        return _slope_of(_decay(d / tau)) / tau
    else:
        return _slope_of(_decay(x / tau)) / tau


@triton.jit
def _conditional(x, one, e0, e1, tau, REINMAX: tl.constexpr):
    """v(y) given b: y of the category that was not drawn is in proportion to (1 + E / (E_drawn w))^(-1 / tau).

    1 / w may be too large: at most 2^60 of it multiplies E, and the logarithm of the rest is subtracted.
    """
    a = tl.where(one, x, -x)  # -log w = log(1 + exp(a)), and log 2 more for ReinMax-Rao
    surprise = tl.maximum(a, 0) + (log2(1 + _decay(a)) + (1 if REINMAX else 0)) * LN_2
    bounded = tl.minimum(surprise, _MOST)
    ratio = tl.where(one, e0 / e1, e1 / e0) * tl.exp2(bounded * LOG2_E)
    return _slope_of(_decay((gumbel_of(ratio + 1) - (surprise - bounded)) / tau))


@triton.jit
def _rao(
    x, one, seed, more, low, high, stream, tau, blocks, T: tl.constexpr, REINMAX: tl.constexpr, OWN: tl.constexpr
):  # fmt: skip
    """The mean of v(y) over the noise: that of the sample, and blocks of more, two of which have one counter."""
    total = tl.zeros_like(x)
    if OWN:
        total = _slope_of(_decay(_ahead(x, seed, low, high, stream, T) / tau))
    count = blocks - (1 if OWN else 0)
    for pair in range((count + 1) // 2):
        w0, w1, w2, w3 = _words(pair, more, low, high, stream)
        e0, e1 = _exponentials(w0, w1, 4 * pair, more, low, high, stream, T)
        total += _conditional(x, one, e0, e1, tau, REINMAX)
        if 2 * pair + 1 < count:
            e0, e1 = _exponentials(w2, w3, 4 * pair + 2, more, low, high, stream, T)
            total += _conditional(x, one, e0, e1, tau, REINMAX)
    return total / blocks / tau


@triton.jit(do_not_specialize=_BOUND)
def gradient(
    out, theta, mask, grad, sample, seeds, mores, ids, taus, gaps, tau, gap, draws, bits, blocks,
    RULE: tl.constexpr, NOISY: tl.constexpr, REINMAX: tl.constexpr, OWN: tl.constexpr,
    N: tl.constexpr, T: tl.constexpr, EACH_SEED: tl.constexpr, EACH_TAU: tl.constexpr, ONCE: tl.constexpr,
):  # fmt: skip
    """dtheta of N draws: 0 where a bit is certain, NaN where theta is."""
    number, kept, bit, stream = _place(draws, bits, ONCE, N)
    x, g = _theta(theta, mask, bit, kept, T), tl.load(grad + number, kept, 0).to(T)
    one = tl.load(sample + number, kept, 0) > 0
    if taus is not None:
        tau = tl.load(taus + bit, kept, 1) if EACH_TAU else tl.load(taus)
    gap = gap if gaps is None else tl.load(gaps)
    if NOISY:
        seed, low, high = _key(seeds, ids, bit, kept, EACH_SEED)
        more, low, high = _key(mores, ids, bit, kept, EACH_SEED)
        slope = _rao(x, one, seed, more, low, high, stream, tau, blocks, T, REINMAX, OWN)
        if REINMAX:
            slope = 2 * slope - 0.5 * _slope_of(_decay(x))
    else:
        slope = _closed(x, one, tau, gap, RULE)
    dx = tl.where((x == INF) | (x == -INF), 0, tl.where(x == x, slope * g, x))
    tl.store(out + number, dx.to(out.dtype.element_ty), kept)
