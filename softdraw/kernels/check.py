"""Whether a fast body gives what plain torch gives on this device: checked before its first use with a dtype.

The inputs are the same in every process, and in no row are the two highest scores so near to each other that rounding
could exchange them (tests/test_check.py): a body that is right is never refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from softdraw.arguments import Draw, KernelRule, compute_dtype
from softdraw.kernels import check_passes, reference
from softdraw.kernels.native import RULES

# One shape for each way in which rows are worked on. On a CPU: side by side, several to a block, one block, several
# blocks. On a GPU: several rows to a program, one row, several programs to a row.
# Nothing here is worth a second thread, but torch on a CPU would wake some for a logarithm of more than 2048 values and
# for max(-1) of any number: milliseconds each where other processes keep the CPUs busy. So neither is used.
_SHAPES = {"cpu": ((5, 10), (3, 100), (1, 600), (1, 1104)), "cuda": ((4, 40), (3, 1000), (1, 20_000))}
_SEED, _FIRST_ID, _COL_START = 2**40 + 1, 2**33 + 5, 8  # words that use all of their bits
_TAU = 0.5
# Relative to the largest value. In float32 a GPU's fast logarithms, which tau magnifies, are the coarsest; a result of
# 16 bits may be rounded the other way.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10, torch.bfloat16: 2**-7, torch.float16: 2**-10}

# With noise given the sample, drawn once: noise in plain torch takes most of the check's time.
_RULES = [KernelRule(name, gap=0.5) for name in RULES]

Result = tuple[str, Tensor, Tensor]  # what it is, as the body has it, as the reference has it


def disagreement(body: ModuleType | Any, device: torch.device, dtype: torch.dtype) -> str | None:
    """The first result of ``body`` that is not the reference's, in words; None when all are.

    On a CPU the check runs in a short-lived thread of its own. No mode of the caller's reaches it (inference, a default
    device, anything that records or changes torch's calls). It does not use the caller's OpenMP team either: after a
    fork plain torch would wait for ever there, for threads that only the parent has.
    """
    if device.type != "cpu":
        return _first_difference(body, device, dtype)
    try:
        alone = ThreadPoolExecutor(1)
        answer = alone.submit(_first_difference, body, device, dtype)
    except RuntimeError:  # no thread can be started: the interpreter ends, or has none
        return _first_difference(body, device, dtype)
    with alone:
        return answer.result()


def _first_difference(body: Any, device: torch.device, dtype: torch.dtype) -> str | None:
    with torch.inference_mode(mode=False), torch.no_grad():
        for number, shape in enumerate(_SHAPES[device.type]):
            # On a GPU rules take rows wider than a program in a way of their own, those with noise too.
            results = _results(body, shape, device, dtype, number == 0, number < 2 or device.type == "cuda")
            for name, ours, theirs in results:
                within = _TOLERANCE.get(theirs.dtype, 0.0)  # an index has none
                if not torch.allclose(ours.double(), theirs.double(), within, within * float(theirs.abs().max())):
                    return f"{name} of {shape[0]}x{shape[1]} in {dtype} differs from plain torch"
    return None


def _results(
    body: Any, shape: tuple[int, int], device: torch.device, dtype: torch.dtype, corners: bool, rules: bool
) -> Iterator[Result]:
    """Of a draw with mask, row ids, offset and tau for each row; ``corners``: also without those, or without noise.
    ``rules``: also what rules need, whose passes know narrow rows and others."""
    x = torch.linspace(-2, 2, shape[0] * shape[1], dtype=torch.float64, device=device).view(shape).to(dtype)
    seed = torch.full((), _SEED, dtype=torch.int64, device=device)
    counted = torch.arange(shape[0], device=device).unsqueeze(-1)
    mask = (torch.arange(shape[1], device=device) % 3 > 0).expand(shape)
    taus = torch.linspace(_TAU, 1, shape[0], dtype=compute_dtype(dtype), device=device).unsqueeze(-1)
    yield from _noisy(body, Draw(x, taus, seed, counted + _FIRST_ID, mask, _COL_START), seed, counted + _FIRST_ID)
    if rules:
        yield from check_passes.results(body, x)
        yield from _rules(body, Draw(x, taus, seed, counted + _FIRST_ID, mask), corners or device.type == "cuda")
    if corners:
        yield from _noisy(body, Draw(x, _TAU, seed), seed, counted)
        yield from _dense(body, Draw(x, _TAU, None), x.to(compute_dtype(dtype)))


def _noisy(body: Any, draw: Draw, seed: Tensor, ids: Tensor) -> Iterator[Result]:
    """Every operation. The reference gets logits with their noise, which is made once: it takes most of the time."""
    x, mask, col_start = draw.logits, draw.mask, draw.col_start
    cols, wide = x.shape[-1], compute_dtype(x.dtype)
    streams = torch.arange(min(len(x), 2), device=x.device).view(-1, 1, 1)
    made = body.gumbel(seed, ids, cols, col_start, streams[-1, 0, 0], wide)
    noise = reference.gumbel(seed, ids, cols, col_start, streams, wide)
    yield "gumbel", made, noise[-1]
    scores = x.to(wide) + noise
    best = _best(scores, mask)
    yield "index", body.index(draw, len(streams)), best
    at, score = body.best(draw, len(streams))
    yield "best", at, best
    yield "best", score, _allowed(scores, mask).amax(-1)
    y, at = body.hard_index(draw, len(streams))
    yield "hard_index", at, best
    yield "hard_index", y, (torch.arange(cols, device=x.device) == best.unsqueeze(-1)).to(x.dtype)
    yield from _indices(body, draw, noise)
    yield from _dense(body, draw, scores[0])


def _indices(body: Any, draw: Draw, noise: Tensor) -> Iterator[Result]:
    """Indices at the temperature tau, the best two in order, and what the law without temperature says."""
    x, tau, _, _, mask, _ = draw
    wide, n = noise.dtype, len(noise)
    scores = _allowed(x.to(wide) + tau * noise, mask)
    best = scores.argmax(-1)
    yield "tempered", body.tempered(draw, n), best
    yield "topk", body.topk(draw, n, 2), scores.argsort(-1, descending=True)[..., :2]
    at, chosen, numbers = body.drawn(draw, n)
    given = _allowed(x.to(wide), mask)
    log_p = given - given.logsumexp(-1, keepdim=True)  # log_softmax would start a team of threads
    top, mean = given.amax(-1), (log_p.exp() * log_p.clamp_min(-1e4)).sum(-1)
    yield "drawn", at, best
    yield "drawn", chosen.to(wide), given.expand_as(scores).gather(-1, best.unsqueeze(-1)).squeeze(-1)
    yield "drawn", numbers.to(wide), torch.stack((top, (given - log_p)[:, 1] - top, mean), -1)


def _dense(body: Any, draw: Draw, scores: Tensor) -> Iterator[Result]:
    """Operations that fill rows. The body goes first: memory that it leaves as it was must not hold a right result."""
    x, tau, mask = draw.logits, draw.tau, draw.mask
    grad, same = x.flip(0, 1), Draw(scores, tau, None, None, mask)
    yield "soft", body.soft(draw), (y := reference.soft(same).to(x.dtype))
    columns = torch.arange(x.shape[-1], device=x.device)
    yield "hard", body.hard(draw), (columns == _best(scores, mask).unsqueeze(-1)).to(x.dtype)
    yield "soft_backward", body.soft_backward(y, grad, tau), reference.soft_backward(y, grad, tau)
    yield "hard_backward", body.hard_backward(draw, grad), reference.hard_backward(same, grad).to(x.dtype)


def _rules(body: Any, draw: Draw, all_of_them: bool) -> Iterator[Result]:
    """The draws that rules differentiate and the gradients of rules, in two samples; or those without noise or bits,
    for the others take rows of every width in one way."""
    x, tau, seed, rows, *_ = draw
    assert isinstance(tau, Tensor)
    assert rows is not None
    index = body.hard_index(draw, 2)[1]
    grad = x.flip(0, 1).expand(2, *x.shape).contiguous()
    for rule in _RULES:
        if all_of_them or not rule.noisy:
            ours, theirs = (which.rule_backward(draw, grad, index, rule, rule.noisy) for which in (body, reference))
            yield "rule_backward", ours, theirs
    if not all_of_them:
        return
    bit = Draw(x[:, 0].clone(), tau.squeeze(-1), seed, rows.squeeze(-1))
    b, streams = body.bits(bit, 2), torch.arange(2, device=x.device).view(-1, 1, 1)
    noise = reference.gumbel(seed, rows, 2, 0, streams, compute_dtype(x.dtype))  # pyright: ignore[reportArgumentType]
    yield "bits", b, (bit.logits + noise[..., 1] > noise[..., 0]).to(x.dtype)
    y = torch.sigmoid((bit.logits + noise[0, :, 1] - noise[0, :, 0]) / bit.tau)
    yield "soft_bits", body.soft_bits(bit, 0.25), (1.5 * y - 0.25).clamp(0, 1).to(x.dtype)
    for rule in _RULES:
        ours, theirs = (which.bits_backward(bit, grad[..., 0], b, rule, rule.noisy) for which in (body, reference))
        yield "bits_backward", ours, theirs


def _best(scores: Tensor, mask: Tensor | None) -> Tensor:
    return _allowed(scores, mask).argmax(-1)


def _allowed(scores: Tensor, mask: Tensor | None) -> Tensor:
    return scores if mask is None else scores.masked_fill(~mask, -math.inf)
